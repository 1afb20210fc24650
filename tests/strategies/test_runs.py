"""Whole runs of every method over a LocalGrid, with tiny models: what holds whatever the accuracy."""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from cdc_flower import results
from cdc_flower.config import ConfigError, parse
from cdc_flower.downlink import update
from cdc_flower.fleet.engines.local_grid import LocalGrid
from clients.client_app import app as client_app
from strategies import run as running
from strategies import server_app
from strategies.checks import check_answers, check_uplink
from strategies.devices import FleetError
from strategies.method import methods
from strategies.run import prepare, run, run_fleet, run_local, teacher_accuracy
from tests.conftest import each_method

ROOT = Path(__file__).parents[2]
METHODS = methods()
LABEL_FREE_WITH_TRAFFIC = ("cdc", "fedavg_pseudo", *each_method(("cema", "released")))
ALL_UP = {"tokens_kept": 0, "token_bits": 16, "uplink_transform": "none", "uplink_budget": 0}


@functools.cache
def named_in_the_guide() -> list[str]:
    """Patterns of the names of metrics in the table of docs/guide.md."""
    text = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    table = text.partition("| name | value, of a round |\n")[2].partition("\n\n")[0]
    names = [name for line in table.splitlines() for name in re.findall("`([^`]+)`", line.split("|")[1])]
    return [re.sub(r"\b[A-Z]{5,}\b", "*", name) for name in names]


class Recording(LocalGrid):
    """A LocalGrid that keeps every train reply."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.replies = []

    def send_and_receive(self, messages, *, timeout=None):
        found = super().send_and_receive(messages, timeout=timeout)
        self.replies += [r for r in found if r.metadata.message_type == "train"]
        return found


def recorded(settings) -> Recording:
    grid = Recording(client_app, settings["run.devices"], settings)
    run(grid, Context(1, 1, {}, RecordDict(), settings))
    return grid


def uplinks(grid: Recording) -> list[tuple]:
    """Everything a device said in training, but for how long this machine took."""
    return [
        (
            r.content["arrays"]["p"].data if "arrays" in r.content else b"",
            {k: v for k, v in r.content["metrics"].items() if k != "host-seconds"},
        )
        for r in grid.replies
    ]


@pytest.mark.parametrize("method", each_method(METHODS))
def test_a_run_is_complete_and_its_bytes_are_counted(method, run_settings):
    said = []
    found = results.read(run_local(parse(run_settings(method=method)), lambda *step: said.append(step)))
    assert found.status == "completed"
    assert len(found.devices) == 9
    assert set(found.devices["status"]) == {"ok"}
    test = found.rounds[found.rounds["kind"] == "test"]
    assert set(test["round"]) == {0, 3}
    assert set(test["domain"]) == {"source", "object", "question"}
    items = results.read_items(found.folder)
    assert items.groupby("domain")["worth"].mean().to_dict() == pytest.approx(
        results.final_accuracy(found.rounds)
    )
    heard = found.rounds[found.rounds["kind"] == "prequential"]
    assert heard.groupby("round")["n"].sum().tolist() == [18, 18, 18]
    totals = found.run["totals"]
    assert (totals["uplink_bytes"] > 0) == (totals["downlink_bytes"] > 0) == (method != "static")
    assert (totals["flops_backward"] > 0) == METHODS[method].traits.device_backprop
    assert totals["flops_forward"] > 0
    assert said[-1] == ("rounds", 3, 3)
    assert found.run["host_seconds"]["devices"] > 0
    assert (len(found.pictures) > 0) == (found.devices["uploaded_samples"].sum() > 0)
    names = found.metrics["name"].unique()
    assert not [n for n in names if not any(fnmatch(n, named) for named in named_in_the_guide())]


@pytest.mark.parametrize("method", ["cdc", "fedavg_lora"])
def test_the_same_seed_gives_the_same_ledger_and_accuracy_also_over_protobuf(method, run_settings):
    runs = [
        results.read(run_local(parse(run_settings(method=method, cohort=0.7)), roundtrip=roundtrip))
        for roundtrip in (False, True)
    ]
    other = results.read(run_local(parse(run_settings(method=method, cohort=0.7, seed=1))))
    assert runs[0].run["ledger_digest"] == runs[1].run["ledger_digest"] != other.run["ledger_digest"]
    assert runs[0].rounds.equals(runs[1].rounds)


@pytest.mark.parametrize("method", LABEL_FREE_WITH_TRAFFIC)
def test_no_label_is_in_any_uplink(method, run_settings, monkeypatch):
    settings = run_settings(method=method)
    told = uplinks(recorded(settings))
    real = running.load_world

    def permuted(config, shared, *rest):
        world = real(config, shared, *rest)
        other = np.random.default_rng(0).permutation(world.train["answer"].to_numpy())
        return replace(world, train=world.train.assign(answer=other))

    monkeypatch.setattr(running, "load_world", permuted)
    assert uplinks(recorded(settings)) == told


@pytest.mark.parametrize("method", ["fedavg_lora", "labelled"])
def test_true_labels_do_reach_the_labelled_arms(method, run_settings, monkeypatch):
    """The counterpart: were labels never read, the test above would hold for any method."""
    settings = run_settings(method=method, rounds=1)
    told = uplinks(recorded(settings))
    real = running.load_world

    def permuted(config, shared, *rest):
        world = real(config, shared, *rest)
        other = np.random.default_rng(0).permutation(world.train["answer"].to_numpy())
        return replace(world, train=world.train.assign(answer=other))

    monkeypatch.setattr(running, "load_world", permuted)
    assert uplinks(recorded(settings)) != told


def test_cdc_stays_within_its_byte_budget_with_the_whole_message(run_settings):
    settings = run_settings(uplink_budget=1500, token_bits=8, uplink_transform="none")
    found = results.read(run_local(parse(settings)))
    assert found.devices["uplink_bytes"].max() <= 1500
    assert found.devices["uploaded_samples"].between(1, 5).all()
    sent = results.read(run_local(parse(run_settings(**ALL_UP))))
    assert (sent.devices["uploaded_samples"] == 6).all()
    assert (sent.devices["tokens_sent"] == 6 * 64).all()


def test_a_device_that_fails_is_counted_and_gets_what_it_missed(run_settings):
    settings = run_settings(fail_devices="2:1")
    grid = recorded(settings)
    rows = results.read(settings["run.out-dir"]).devices.set_index(["round", "device"])
    assert rows.loc[(2, 1), "status"] == "failed"
    assert (rows["status"] == "failed").sum() == 1
    assert (
        rows.loc[(3, 1), "downlink_bytes"] > 1.2 * rows.loc[(3, 0), "downlink_bytes"]
    )  # two updates, not one
    held = [grid.context(d).state["held"] for d in range(3)]
    assert [h["version"] for h in held] == [2, 2, 2]
    (digest,) = {h["digest"] for h in held}
    (stored,) = [p for p in (Path(settings["run.out-dir"]) / "adapters").iterdir() if p.stem == digest.hex()]
    assert update.digest(np.load(stored)) == digest


def test_an_interrupted_round_leaves_no_rows(run_settings):
    class Interrupted(LocalGrid):
        def send_and_receive(self, messages, *, timeout=None):
            if any(m.metadata.message_type == "train" and m.metadata.group_id == "2" for m in messages):
                raise KeyboardInterrupt
            return super().send_and_receive(messages, timeout=timeout)

    settings = run_settings()
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(client_app, 3, settings), Context(1, 1, {}, RecordDict(), settings))
    found = results.read(settings["run.out-dir"])
    assert found.status == "interrupted"
    assert found.devices["round"].tolist() == [1, 1, 1]


def test_a_run_without_enough_devices_stops_with_a_clear_message(run_settings):
    settings = run_settings(fail_devices="2:0,2:1", min_devices=2)
    with pytest.raises(FleetError, match="round 2: 1 of 3 devices answered; setting 'run.min-devices' = 2"):
        run_local(parse(settings))
    assert results.read(settings["run.out-dir"]).status == "failed"


def test_ctrl_c_leaves_the_rounds_that_were_done(run_settings):
    settings = run_settings(eval_every=1)

    def stop(stage, done, total):
        if (stage, done) == ("rounds", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_local(parse(settings), stop)
    found = results.read(settings["run.out-dir"])
    assert found.status == "interrupted"
    assert found.run["rounds_done"] == 2
    assert len(found.devices) == 6


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("uplink_budget", 100, "'uplink.budget' = 100: a message without a sample has up to 272 bytes"),
        ("lora_rank", 500, "'pair.lora-rank' = 500: the student's layers are 64 wide; allowed: up to 64"),
        ("uplink_budget", 280, "'uplink.budget' = 280: one sample of 4 tokens needs"),
        ("tokens_kept", 65, "'uplink.tokens-kept' = 65: a picture has 64 tokens"),
        ("min_devices", 4, "'run.min-devices' = 4: a round asks 3 devices"),
        ("fail_devices", "soon", "'run.fail-devices' = 'soon'; allowed: round:device pairs"),
        ("downlink_budget", 10, "'downlink.budget' = 10"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(setting, value, says, run_settings, tmp_path):
    with pytest.raises(ConfigError, match=says):
        run_local(parse(run_settings(**{setting: value})))
    assert not (tmp_path / "cdc").exists()


def test_workers_without_a_gpu_are_refused_where_devices_shall_have_one(run_settings, tmp_path):
    with pytest.raises(
        ConfigError, match="with --gpu-fraction 0: workers see no GPU; allowed: a share above"
    ):
        run_fleet(parse(run_settings(run_device="cuda")))
    assert not (tmp_path / "cdc").exists()


@pytest.mark.parametrize("unit", ["jpeg", "patches"])
def test_a_budget_below_the_smallest_picture_is_refused(unit, run_settings):
    says = "'uplink.budget' = 400: the smallest of 8 pictures in quality 75 needs"
    with pytest.raises(ConfigError, match=says):
        run_local(parse(run_settings(uplink_unit=unit, uplink_budget=400)))


def test_units_that_do_not_fit_the_pair_are_refused(run_settings):
    config = parse(run_settings(uplink_unit="patches"))
    setup = prepare(config)
    shape = copy.deepcopy(setup.shared.config)
    shape.vision_feature_select_strategy = "full"  # with a class token
    text = dataclasses.replace(setup.shared.text, config=shape)
    other = dataclasses.replace(setup.shared, config=shape, text=text)
    with pytest.raises(ConfigError, match="'uplink.unit' = 'patches': pair 'scenes' has 65 tokens"):
        check_uplink(config, other, setup.world)
    small = copy.deepcopy(setup.shared.processor)
    small.size = {"height": 48, "width": 48}
    with pytest.raises(
        ConfigError, match=f"'uplink.unit' = 'patches': .* reads {setup.shared.side}x{setup.shared.side}"
    ):
        check_uplink(config, dataclasses.replace(setup.shared, processor=small), setup.world)


def test_under_flwr_a_relative_out_dir_is_refused(run_settings):
    settings = run_settings(out_dir="results/x")
    with pytest.raises(ConfigError, match="absolute path"):
        server_app.main(LocalGrid(client_app, 3, settings), Context(1, 1, {}, RecordDict(), settings))


@pytest.mark.parametrize("part", ["test", "stream"])
def test_the_teachers_accuracy_is_by_domain(run_settings, part):
    found = teacher_accuracy(parse(run_settings()), part=part)
    assert set(found) == {"source", "object", "question"}
    assert all(0 <= v <= 1 for v in found.values())


@pytest.mark.parametrize("unit", ["tokens", "jpeg", "patches"])
def test_a_round_with_every_uplink_unit_teaches_within_its_budget(unit, run_settings):
    settings = run_settings(uplink_unit=unit, rounds=1, picture_quality=30)
    once, again = (results.read(run_local(parse(settings), roundtrip=r)) for r in (False, True))
    assert once.status == "completed"
    assert set(once.devices["status"]) == {"ok"}
    assert (once.devices["uplink_bytes"] <= 3000).all()
    assert (once.devices["uploaded_samples"] > 0).all()
    n_tokens = once.pictures["n_tokens"].iloc[0]
    kept = {"tokens": 4, "jpeg": n_tokens, "patches": 4}[unit]
    assert (once.devices["tokens_sent"] == kept * once.devices["uploaded_samples"]).all()
    assert {len(p) for p in once.pictures["positions"]} == {kept}
    values = once.metrics.set_index("name")["value"]
    assert values["taught"] == once.devices["uploaded_samples"].sum()
    assert once.run["totals"]["cloud_flops"] == values["cloud_flops"] > 0
    assert once.run["stream"]["questions"] == settings["run.samples-per-round"]
    assert once.run["ledger_digest"] == again.run["ledger_digest"]


def test_a_longest_answer_below_what_the_data_wants_to_hear_is_refused(run_settings):
    setup = prepare(parse(run_settings()))
    spoken = setup.world.train["answer"].iloc[0]
    long = setup.world.train.assign(answer=f"{spoken} {spoken} {spoken} {spoken}")
    world = replace(setup.world, train=long)
    count, total = len(long), len(long) + len(world.test)
    named = f"'pair.max-answer-tokens' = 3: {count} of {total} questions .* allowed: 4 or more"
    with pytest.raises(ConfigError, match=named):
        check_answers(setup.config, setup.shared, world)
    check_answers(parse(run_settings(max_answer_tokens=4)), setup.shared, world)


def test_of_captions_some_may_be_longer_than_what_can_be_said_but_not_most(run_settings):
    config = parse(run_settings(task="captions"))
    setup = prepare(parse(run_settings()))
    spoken = setup.world.train["answer"].iloc[0]
    few, most = (setup.world.train.copy() for _ in range(2))
    few.loc[:2, "answer"] = f"{spoken} {spoken} {spoken} {spoken}"
    most["answer"] = few["answer"].iloc[0]
    check_answers(config, setup.shared, replace(setup.world, train=few))
    with pytest.raises(ConfigError, match="'pair.max-answer-tokens' = 3"):
        check_answers(config, setup.shared, replace(setup.world, train=most))


def test_a_task_without_its_columns_is_refused(run_settings):
    named = "'data.task' = 'captions': pack 'scenes' has no column 'answers'; allowed: exact"
    with pytest.raises(ConfigError, match=named):
        prepare(parse(run_settings(task="captions")))
