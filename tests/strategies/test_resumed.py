"""A run that stops anywhere and resumes ends with the same bits as one that never stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flwr.app import Array, ArrayRecord, Context, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from cdc_flower import checkpoint, results
from cdc_flower.config import ConfigError, parse
from cdc_flower.fleet.cost import mixes
from cdc_flower.fleet.engines import local_grid as grid
from cdc_flower.fleet.engines.local_grid import LocalGrid
from cdc_flower.session import session
from clients import store
from clients.client_app import app as client_app
from strategies import run as running
from strategies.method import names
from strategies.resumed import Resumed, identity
from strategies.run import run_local
from tests.conftest import each_method


class Stopped(Exception):
    """What the tests end a run with."""


def stop_at(stage, round):
    """A progress callback that ends the run when this is done (`rounds`) or about to be (`evaluation`)."""

    def progress(*step):
        if step[:2] == (stage, round):
            raise Stopped

    return progress


def outcome(folder: Path) -> dict:
    """All that a run says, but for how long this machine took; tables as text, where NaN equals NaN."""
    found = results.read(folder)
    pictures = found.pictures.to_dict("records")
    exact = ("status", "rounds_done", "accuracy", "forgetting", "ledger_digest", "adapter_digest")
    return {
        "run": {name: found.run[name] for name in exact},
        "rounds": repr(found.rounds.to_dict("list")),
        "metrics": repr(found.metrics.to_dict("list")),
        "devices": repr(found.devices.drop(columns="host_seconds").to_dict("list")),
        "pictures": repr([{**row, "positions": list(row["positions"])} for row in pictures]),
    }


@pytest.fixture
def settings(run_settings, tmp_path):
    def make(**more):
        return run_settings(
            **{
                "rounds": 4,
                "eval_every": 2,
                "cohort": 0.7,
                "cloud_lr": 0.05,
                "history": 2,
                "memory": 8,
                "out_dir": str(tmp_path / "run"),
                **more,
            }
        )

    return make


WHOLE: dict[str, dict] = {}


def uninterrupted(settings, tmp_path) -> dict:
    """The outcome of a run of these settings that never stopped; each run once."""
    own = {**settings, "run.out-dir": "", "run.checkpoint-every": 0}
    key = json.dumps(own, sort_keys=True)
    if key not in WHOLE:
        WHOLE[key] = outcome(run_local(parse({**own, "run.out-dir": str(tmp_path / "whole")})))
    return WHOLE[key]


def interrupted(settings, *stops) -> dict:
    """Stop at each of `stops` in turn, resume, and end."""
    for i, stop in enumerate(stops):
        with pytest.raises(Stopped):
            run_local(parse(settings), stop_at(*stop), resume=i > 0)
        session().shelf(store.SHELF).clear()  # as in a new process: what devices hold is read from the disk
    return outcome(run_local(parse(settings), resume=True))


@pytest.mark.parametrize("method", ["cdc", "fedavg_lora"])
def test_a_run_that_stops_after_every_round_ends_as_one_that_never_stopped(method, settings, tmp_path):
    made = settings(method=method)
    whole = uninterrupted(made, tmp_path)
    assert whole["run"]["status"] == "completed"
    assert interrupted(made, *(("rounds", round) for round in range(5))) == whole


@pytest.mark.slow
def test_receipts_cost_their_bytes_alone_and_are_kept(settings, tmp_path):
    made = settings(receipts=True, cohort=1.0, rounds=2)
    found = interrupted(made, ("rounds", 1))
    plain = uninterrupted({**made, "run.receipts": False}, tmp_path)
    assert found["run"]["adapter_digest"] == plain["run"]["adapter_digest"]
    down, less = (results.read(tmp_path / name).devices["downlink_bytes"] for name in ("run", "whole"))
    assert len({more - fewer for more, fewer in zip(down, less, strict=True)} - {0}) in (1, 2)
    assert (down > less).all()
    _, parts = checkpoint.load_newest(tmp_path / "run" / "checkpoints")
    assert json.loads(parts["fleet"]["taken"]) == {"0": 2, "1": 2, "2": 2}
    assert json.loads(parts["fleet"]["refused"]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("harmful", ["1:huge", "0,1:sybil"])
def test_a_run_with_a_doorkeeper_resumes_with_all_that_it_remembers(harmful, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("strategies.doorkeeper.PICTURES", (16, 1000))
    made = settings(cloud_doorkeeper="on", poison_devices=harmful, influence=1.5, cohort=1.0)
    stops = (("rounds", round) for round in (1, 3))
    assert interrupted(made, *stops) == uninterrupted(made, tmp_path)
    frame = results.read(tmp_path / "run").metrics
    assert frame[frame["name"].str.startswith("dropped_")]["value"].sum() > 0


@pytest.mark.parametrize("method", each_method(m for m in names() if m not in ("cdc", "fedavg_lora")))
def test_every_other_method_resumes(method, settings, tmp_path):
    made = settings(method=method, rounds=3)
    assert interrupted(made, ("rounds", 2)) == uninterrupted(made, tmp_path)


def test_a_guarded_run_resumes_and_says_what_the_guard_found(settings, tmp_path):
    made = settings(method="cdc", rounds=2, cloud_guard=0.01, source_teacher="auto")
    assert interrupted(made, ("rounds", 1)) == uninterrupted(made, tmp_path)
    frame = results.read(tmp_path / "run").metrics
    found = {name: of["value"].tolist() for name, of in frame.groupby("name") if name.startswith("guard_")}
    assert set(found) == {"guard_accuracy", "guard_held", "guard_share"}
    assert all(
        held == (share < 1) for held, share in zip(found["guard_held"], found["guard_share"], strict=True)
    )


def test_a_server_of_fedavg_with_all_that_it_keeps_resumes(settings, tmp_path):
    """Moments, running mean, what the codec left out on the server and on the devices."""
    made = settings(
        method="fedavg_lora",
        rounds=3,
        server="adam",
        fedavg_ema_decay=0.5,
        replay_steps=1,
        fedavg_codec="dyadic",
    )
    assert interrupted(made, ("rounds", 2)) == uninterrupted(made, tmp_path)


def test_a_run_that_stops_within_rounds_and_again_and_again_ends_the_same(settings, tmp_path):
    made = settings(fail_devices="2:1,3:0", cohort=1.0, losses="ce,kl,feature=0.1")
    stops = [("evaluation", 0), ("rounds", 1), ("evaluation", 2), ("evaluation", 2), ("evaluation", 4)]
    assert interrupted(made, *stops) == uninterrupted(made, tmp_path)


def test_a_full_replay_buffer_and_a_window_of_versions_come_back(settings, tmp_path):
    made = settings(rounds=6, history=1, replay_bytes=30_000, cohort=0.4)
    whole = uninterrupted(made, tmp_path)
    assert interrupted(made, ("rounds", 3), ("rounds", 4)) == whole
    _, parts = checkpoint.load_newest(Path(made["run.out-dir"]) / "checkpoints") or (0, {})
    assert 0 < parts["cloud"]["replay.samples"] < parts["cloud"]["replay.seen"]
    assert parts["mirror"]["oldest"] > 0


@pytest.mark.parametrize(
    "more", [{"late": "take", "over_selection": 2.0}, {"mode": "async", "in_flight": 4, "buffer": 2}]
)
def test_virtual_time_goes_on_where_it_was(more, settings, tmp_path):
    fleet = {
        "mix": "pi4=50%,pi5=50%",
        "cost_model": "llava-qwen-0.5b",
        "compression": "nf4",
        "trace": "always",
    }
    made = settings(**{"devices": 6, "cohort": 0.5, "cloud_steps": 1, "mode": "sync", **fleet, **more})
    whole = uninterrupted(made, tmp_path)
    assert interrupted(made, ("rounds", 1), ("evaluation", 2), ("rounds", 3)) == whole
    assert "late" in whole["devices"] or "async" in more.values()


def test_a_run_without_an_out_dir_finds_what_its_devices_hold(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = settings(out_dir="")
    assert interrupted(made, ("rounds", 2)) == uninterrupted(made, tmp_path)
    assert (tmp_path / "results" / "cdc-0" / "checkpoints").is_dir()


def test_round_0_is_measured_once(settings):
    made = settings(rounds=2)
    said = []
    with pytest.raises(Stopped):
        run_local(parse(made), stop_at("rounds", 1))
    run_local(parse(made), lambda *step: said.append(step), resume=True)
    assert said[-3:] == [("rounds", 1, 2), ("evaluation", 2, 2), ("rounds", 2, 2)]
    assert ("evaluation", 0, 2) not in said


def test_what_was_written_after_the_checkpoint_is_cut_back(settings):
    made = settings(checkpoint_every=2)
    with pytest.raises(Stopped):
        run_local(parse(made), stop_at("rounds", 3))
    assert results.read(made["run.out-dir"]).devices["round"].max() == 3

    def look(stage, done, _):
        if (stage, done) == ("rounds", 2):
            raise Stopped

    with pytest.raises(Stopped):
        run_local(parse(made), look, resume=True)
    found = results.read(made["run.out-dir"])
    assert found.devices["round"].max() == found.rounds["round"].max() == 2
    assert found.run["rounds_done"] == 2


def test_a_corrupted_checkpoint_is_skipped_with_a_warning_and_the_result_is_the_same(
    settings, tmp_path, caplog
):
    made = settings()
    whole = uninterrupted(made, tmp_path)
    with pytest.raises(Stopped):
        run_local(parse(made), stop_at("rounds", 3))
    path = checkpoint.path_of(Path(made["run.out-dir"]) / "checkpoints", 3)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="cdc_flower.checkpoint"):
        assert interrupted(made) == whole
    assert [r.getMessage() for r in caplog.records if r.name == "cdc_flower.checkpoint"] == [
        f"checkpoint {path} is skipped: its checksum is wrong"
    ]


def test_without_a_usable_checkpoint_a_run_starts_from_the_beginning_and_says_so(settings, tmp_path, caplog):
    made = settings(checkpoint_every=0, rounds=2)
    with pytest.raises(Stopped):
        run_local(parse(made), stop_at("rounds", 1))
    assert not (Path(made["run.out-dir"]) / "checkpoints").exists()
    assert interrupted(made) == uninterrupted(made, tmp_path)
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert said == [f"{made['run.out-dir']}: no usable checkpoint, the run starts from the beginning"]


def test_files_stay_few_and_a_new_run_takes_none_of_an_old_one(settings):
    made = settings()
    folder, seen = Path(made["run.out-dir"]) / "checkpoints", []
    run_local(parse(made), lambda *_: seen.append([p.name for p in folder.glob("*")]))
    assert max(map(len, seen)) == 2
    assert [p.name for p in folder.iterdir()] == ["round-000004.ckpt"]
    with pytest.raises(Stopped):
        run_local(parse(made), stop_at("evaluation", 0))
    assert not folder.exists()


@pytest.mark.parametrize(("every", "rounds"), [(1, 8), pytest.param(3, 10, marks=pytest.mark.slow), (0, 7)])
def test_adapters_stay_as_few_as_devices_and_checkpoints_name(every, rounds, settings):
    own = {"rounds": rounds, "eval_every": rounds, "checkpoint_every": every}
    made = settings(devices=3, cohort=0.34, cloud_steps=1, **own)
    folder, seen = Path(made["run.out-dir"]) / "adapters", []
    run_local(parse(made), lambda *_: seen.append(len(list(folder.glob("*")))))
    assert max(seen) <= 3 + 3 + every < rounds + 1  # of 3 devices, of 3 in the checkpoint before, and since
    assert len(list(folder.glob("*"))) <= 3  # the last checkpoint has the devices of now
    found = results.read(made["run.out-dir"]).metrics
    assert found[(found["round"] == rounds) & (found["name"] == "version")]["value"].item() == rounds


def test_elsewhere_than_on_our_grids_each_device_keeps_two_adapters(settings, tmp_path, monkeypatch):
    made = settings(rounds=5, checkpoint_every=0)
    whole = uninterrupted(made, tmp_path)
    plain = {"partition-id": 0, "num-partitions": 3}  # as Flower's, which does not say that devices share
    monkeypatch.setattr(grid, "node_config", lambda device, devices: {**plain, "partition-id": device})
    assert outcome(run_local(parse(made))) == whole
    counts = {p.name: len(list(p.iterdir())) for p in (Path(made["run.out-dir"]) / "adapters").iterdir()}
    assert set(counts) == {"device-0", "device-1", "device-2"}
    assert max(counts.values()) == 2


@pytest.mark.parametrize("kept", [0, 1])
def test_a_run_resumes_from_each_checkpoint_that_is_kept(kept, settings, tmp_path):
    made = settings(rounds=6, devices=2, cohort=0.5, cloud_steps=1, eval_every=6, checkpoint_every=2)
    whole = uninterrupted(made, tmp_path)
    with pytest.raises(Stopped):
        run_local(parse(made), stop_at("rounds", 5))
    files = list(checkpoint.found(Path(made["run.out-dir"]) / "checkpoints").values())
    assert len(files) == 2
    for newer in files[kept + 1 :]:
        newer.unlink()
    session().shelf(store.SHELF).clear()
    assert interrupted(made) == whole


def test_more_rounds_can_be_asked_for(settings, tmp_path):
    longer = settings(rounds=4, eval_every=2)
    run_local(parse(settings(rounds=2, eval_every=2)))
    assert outcome(run_local(parse(longer), resume=True)) == uninterrupted(longer, tmp_path)


def test_a_run_resumes_where_it_was_moved_to(settings, tmp_path):
    made = settings()
    whole = uninterrupted(made, tmp_path)
    with pytest.raises(Stopped):
        run_local(parse(made), stop_at("rounds", 2))
    shutil.move(made["run.out-dir"], tmp_path / "moved")
    assert outcome(run_local(parse({**made, "run.out-dir": str(tmp_path / "moved")}), resume=True)) == whole


def test_what_cannot_resume_is_one_clear_line(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = run_local(parse(settings(rounds=3)))
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    for changed, says in (
        ({"run.rounds": 2}, r"'run.rounds' = 2: the run in .* has done 3, nothing is left; allowed: above 3"),
        ({"run.rounds": 3}, r"'run.rounds' = 3: the run in .* has done 3, nothing is left; allowed: above 3"),
        ({"cloud_steps": 5, "rounds": 4}, r"'cloud.steps' = 5: the run in .* has 2; allowed: the same"),
        ({"out_dir": "absent"}, r"config\.json is missing"),
    ):
        with pytest.raises(ConfigError, match=says) as refused:
            run_local(parse(settings(**{"run.rounds": 3, **changed})), resume=True)
        assert "\n" not in str(refused.value)
        assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before


@pytest.mark.parametrize("fact", ["pair_digest", "data_digest"])
def test_another_pair_or_other_data_is_refused(fact, settings, tmp_path):
    made = settings()
    with pytest.raises(Stopped):
        run_local(parse(made), stop_at("rounds", 1))
    path = Path(made["run.out-dir"]) / "config.json"
    own = results.read(made["run.out-dir"]).info[fact]
    path.write_text(path.read_text().replace(own, "0" * 64))
    with pytest.raises(ConfigError, match=f"has the {fact.replace('_', ' ')} 0+, now it is {own}"):
        run_local(parse(made), resume=True)


@pytest.mark.parametrize("read", ["config.json", "the checkpoint"])
@pytest.mark.parametrize("name", ["mix.toml", "mine.json", "trace.json"])
def test_another_content_of_a_file_that_settings_name_is_refused(name, read, settings, tmp_path):
    profiles = json.loads((Path(mixes.__file__).parent / "profiles.json").read_text())
    named = {
        "mine.json": json.dumps({"mine": profiles["pi4"]}),
        "mix.toml": 'profiles = ["mine.json"]\n[mix]\nmine = 100\n',
        "trace.json": json.dumps({"period": 1e5, "intervals": [[d, 0, 1e5, True, True] for d in range(3)]}),
    }
    for file, content in named.items():
        (tmp_path / file).write_text(content)
    made = settings(
        method="static", mode="sync", mix=str(tmp_path / "mix.toml"), trace=str(tmp_path / "trace.json")
    )
    with pytest.raises(Stopped):
        run_local(parse(made), stop_at("rounds", 1))
    if read != "config.json":
        path = Path(made["run.out-dir"]) / "config.json"
        said = json.loads(path.read_text())
        digest = hashlib.sha256(f"{named[name]}\n".encode()).hexdigest()
        said["named_files"][str(tmp_path / name)] = digest
        path.write_text(json.dumps(said))
    (tmp_path / name).write_text(f"{named[name]}\n")
    with pytest.raises(ConfigError, match=f"begun with another content of the file '.*{name}'") as refused:
        run_local(parse(made), resume=True)
    assert "\n" not in str(refused.value)
    assert ("the checkpoint " in str(refused.value)) == (read != "config.json")
    if read == "config.json":
        (tmp_path / name).write_text(named[name])
        assert interrupted(made)["run"]["status"] == "completed"


def test_a_run_that_names_no_file_is_known_by_what_it_always_was():
    facts = {"pair_digest": "p", "data_digest": "d"}
    own = identity(parse({}), facts)
    assert list(own) == ["settings", "pair_digest", "data_digest", "digest"]


def test_an_engine_that_keeps_its_states_writes_no_checkpoint_and_does_not_resume(settings):
    class Foreign(LocalGrid):
        states = None

    made = settings(rounds=1)
    grid, context = Foreign(client_app, 3, made), Context(1, 1, {}, RecordDict(), made)
    folder = running.run(grid, context)
    assert not (folder / "checkpoints").exists()
    with pytest.raises(ConfigError, match="engine 'Foreign' keeps the devices' states to itself"):
        running.run(grid, context, resume=True)


def test_flowers_own_strategy_goes_on_counting(fake_devices):
    rounds = []

    def train(device, content):
        rounds.append(content["config"]["server-round"])
        return RecordDict({"arrays": content["arrays"], "metrics": MetricRecord({"num-examples": 1})})

    strategy, measured = Resumed(FedAvg(fraction_evaluate=0.0), 3), []
    start = ArrayRecord({"p": Array(np.arange(3, dtype=np.float32))})

    def evaluate(round, arrays):
        measured.append(round)

    strategy.start(fake_devices(train), start, num_rounds=2, evaluate_fn=strategy.evaluation(evaluate))
    assert rounds == [4, 4, 4, 5, 5, 5]
    assert measured == [4, 5]


def test_a_checkpoint_of_another_program_is_refused_in_one_line(settings):
    made = settings(rounds=2)
    with pytest.raises(Stopped):
        run_local(parse(made), stop_at("rounds", 1))
    folder = Path(made["run.out-dir"]) / "checkpoints"
    round, parts = checkpoint.load_newest(folder) or (0, {})
    own = {"strategy", "fleet", "lineage", "mirror", "cloud", "gate", "devices", "arrays", "folder", "run"}
    assert set(parts) == own
    checkpoint.save(folder, round, {**parts, "cloud": {**parts["cloud"], "mean": np.zeros(3, np.float32)}})
    with pytest.raises(ConfigError, match=r"the checkpoint of round 1 does not fit: .*3"):
        run_local(parse(made), resume=True)
    checkpoint.save(folder, round, {name: part for name, part in parts.items() if name != "mirror"})
    with pytest.raises(ConfigError, match=r"does not fit: KeyError..mirror"):
        run_local(parse(made), resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["local", "static"])
def test_what_devices_are_worth_on_their_own_items_resumes_too(method, settings, tmp_path):
    own = {"data_tested": "own", "partition": "natural", "partition_by": "user"}
    made = settings(method=method, **own)
    whole = uninterrupted(made, tmp_path)
    expected = results.read(tmp_path / "whole").personal
    assert interrupted(made, ("rounds", 3)) == whole
    found = results.read(tmp_path / "run").personal
    pd.testing.assert_frame_equal(found, expected)
    assert sorted(set(found["round"])) == [0, 2, 4]
    assert set(found["device"]) == {0, 1, 2}
    last = found[found["round"] == 4]
    accuracy = last.groupby("domain")[["worth", "items"]].sum()
    assert (accuracy["worth"] / accuracy["items"]).to_dict() == pytest.approx(whole["run"]["accuracy"])
