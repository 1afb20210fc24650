"""A run folder is readable at every moment, and its derived numbers mean what they say."""

import numpy as np
import pandas as pd
import pytest

from cdc_flower import results
from cdc_flower.config import ConfigError, flat, parse
from cdc_flower.ledger import Ledger, Row
from cdc_flower.run_folder import RunFolder
from tests.conftest import full

LEDGER = pd.DataFrame(
    {
        "round": [1, 1, 2],
        "device": [0, 1, 0],
        "status": ["ok", "failed", "ok"],
        "uplink_bytes": [100, 0, 50],
        "downlink_bytes": [10, 10, 10],
        "flops_forward": [1.0, 2.0, 3.0],
        "flops_backward": [0.0, 0.0, 4.0],
    }
)
SAMPLE = {
    "image": b"png",
    "positions": [3, 1],
    "side": 2,
    "question": "what?",
    "device_answer": "cat",
    "teacher_answer": "dog",
    "round": 1,
    "device": 0,
}


def begun(path, **settings):
    folder = RunFolder(path)
    folder.begin(parse(full(settings)), results.provenance(), {"pair_digest": "p", "data_digest": "d"})
    return folder


def test_everything_written_is_read_back(tmp_path):
    folder = begun(tmp_path / "run", seed=7)
    folder.round(0, {"source": 0.9, "object": 0.25}, {}, {})
    folder.round(1, None, {"source": (3, 4), "object": (0, 0)}, {"loss": 1.5, "cloud_flops": 3e9})
    folder.stream = {"questions": 9}
    folder.round(
        2,
        {"source": 0.8, "object": 0.75},
        {"object": (1, 2)},
        {"cloud_flops": 2e9},
        test_items={"source": 10},
    )
    folder.devices(LEDGER, digest="abc")
    folder.pictures([SAMPLE])
    folder.items(["source", "object"], np.array([1.0, 0.5]))
    assert results.read_items(folder.path)["worth"].tolist() == [1.0, 0.5]
    with folder.stage("cloud"):
        pass
    folder.stage_seconds["cloud"] += 2.0
    folder.finish("completed")

    run = results.read(tmp_path / "run")
    assert run.config == flat(parse({"run.seed": 7}))
    assert run.info["seeds"] == {"run": 7}
    assert run.info["pair_digest"] == "p"
    assert run.info["versions"]["flwr"]
    assert run.status == "completed"
    assert run.run["accuracy"] == {"source": 0.8, "object": 0.75}
    assert run.run["forgetting"] == pytest.approx(0.1)
    assert run.run["ledger_digest"] == "abc"
    assert run.run["host_seconds"]["cloud"] >= 2.0
    assert run.run["totals"] == {
        "uplink_bytes": 150,
        "downlink_bytes": 30,
        "flops_forward": 6.0,
        "flops_backward": 4.0,
        "device_flops": 10.0,
        "tasks": 3,
        "failures": 1,
        "cloud_flops": 5e9,
    }
    assert run.run["stream"] == {"questions": 9}
    assert len(run.rounds) == 6  # two evaluations of two domains, two prequential rows; (0, 0) is no row
    row = run.rounds.set_index(["round", "kind", "domain"]).loc[2, "test", "source"]
    assert (row["accuracy"], row["n"]) == (0.8, 10)
    assert run.metrics.to_dict("records")[0] == {"round": 1, "name": "loss", "value": 1.5}
    pd.testing.assert_frame_equal(run.devices, LEDGER, check_dtype=False)
    assert run.pictures["image"][0] == b"png"
    assert list(run.pictures["positions"][0]) == [3, 1]


def test_a_run_killed_at_any_point_is_readable_and_counts_as_interrupted(tmp_path):
    folder = begun(tmp_path)
    assert results.read(tmp_path).rounds.empty
    folder.round(0, {"source": 0.5}, {}, {})
    (tmp_path / ".rounds.parquet.1.tmp").write_bytes(b"half a fi")  # killed while writing the next round
    run = results.read(tmp_path)
    assert run.status == "interrupted"
    assert results.final_accuracy(run.rounds) == {"source": 0.5}
    assert results.totals(run.devices)["uplink_bytes"] == 0


def test_begin_clears_an_earlier_run(tmp_path):
    folder = begun(tmp_path)
    folder.round(0, {"source": 0.5}, {}, {})
    folder.finish("completed")
    begun(tmp_path)
    run = results.read(tmp_path)
    assert run.status == "interrupted"
    assert run.rounds.empty


def test_what_trackers_know_a_run_by_stays_with_it_and_goes_with_a_new_one(tmp_path):
    folder = begun(tmp_path)
    (tmp_path / "tensorboard").mkdir()
    kept = [tmp_path / name for name in ("mlflow-run", "wandb-run", "tensorboard/events")]
    for path in kept:
        path.write_text("x")
    folder.begin(parse({}), {}, {}, (0, folder.state()))
    assert all(path.exists() for path in kept)
    begun(tmp_path)
    assert not any(path.exists() for path in kept)


def test_a_round_given_twice_is_replaced(tmp_path):
    folder = begun(tmp_path)
    folder.round(1, {"source": 0.5}, {}, {"loss": 1.0})
    folder.round(1, {"source": 0.6}, {}, {"loss": 2.0})
    run = results.read(tmp_path)
    assert run.rounds["accuracy"].tolist() == [0.6]
    assert run.metrics["value"].tolist() == [2.0]


def test_accuracy_outside_0_to_1_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"source in round 1 is 55\.0"):
        begun(tmp_path).round(1, {"source": 55.0}, {}, {})


def test_ledger_and_pictures_with_missing_fields_are_refused(tmp_path):
    folder = begun(tmp_path)
    with pytest.raises(ValueError, match="lacks the columns status"):
        folder.devices(LEDGER.drop(columns="status"))
    with pytest.raises(ValueError, match="picture lacks image, question"):
        folder.pictures([{k: v for k, v in SAMPLE.items() if k not in ("image", "question")}])


def test_an_out_dir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="setting 'run.out-dir'"):
        begun(tmp_path / "file")


def test_a_folder_that_goes_on_has_the_tables_of_its_state_and_the_seconds_of_both(tmp_path):
    first = begun(tmp_path / "run", rounds=4)
    first.round(1, {"source": 0.1 + 0.2}, {"source": (1, 3)}, {"loss": 1 / 3, "nan": float("nan")})
    first.devices(LEDGER)
    first.pictures([SAMPLE])
    first.stage_seconds["cloud"] += 2.0
    saved = first.state()
    first.round(2, {"source": 0.5}, {}, {})  # after the checkpoint
    first.pictures([SAMPLE])
    first.finish("interrupted")

    second = RunFolder(tmp_path / "run")
    second.stage_seconds["cloud"] += 1.0
    second.begin(parse({"run.rounds": 6}), {}, {"resumed_after": 1}, (1, saved))
    now = results.read(tmp_path / "run")
    assert (now.status, now.config["run.rounds"], now.info["resumed_after"]) == ("interrupted", 6, 1)
    assert now.rounds.to_dict("list") == {
        "round": [1, 1],
        "domain": ["source"] * 2,
        "kind": ["test", "prequential"],
        "accuracy": [0.1 + 0.2, 1 / 3],
        "n": [0, 3],
    }
    assert now.metrics["value"].tolist()[0] == 1 / 3
    assert list(now.pictures["positions"][0]) == [3, 1]
    assert len(now.pictures) == 1
    second.round(2, {"source": 0.5}, {}, {})
    second.finish("completed", adapter_digest="ab")
    ended = results.read(tmp_path / "run").run
    assert ended["host_seconds"]["cloud"] == 3.0
    assert ended["wall_seconds"] >= saved["wall_seconds"]
    assert (ended["rounds_done"], ended["adapter_digest"]) == (2, "ab")


def test_a_run_without_end_puts_its_tables_away(tmp_path):
    folder = RunFolder(tmp_path)
    folder.begin(parse({}), {}, {})
    ledger = Ledger([Row(1, 0), Row(2, 0)])
    folder.round(1, None, {}, {"loss": 1.0})
    folder.devices(ledger.frame())
    folder.rotate("000000002")
    folder.round(3, None, {}, {"loss": 2.0})
    folder.devices(Ledger([Row(3, 0)]).frame())
    part = tmp_path / "parts" / "000000002"
    assert pd.read_parquet(part / "devices.parquet")["round"].tolist() == [1, 2]
    assert pd.read_parquet(part / "metrics.parquet")["value"].tolist() == [1.0]
    assert pd.read_parquet(tmp_path / "metrics.parquet")["value"].tolist() == [2.0]
    folder.begin(parse({}), {}, {})
    assert not (tmp_path / "parts").exists()


def test_what_devices_are_worth_on_their_own_items_is_kept_by_round_and_in_the_state(tmp_path):
    def of(round, worth):
        row = {"round": round, "device": 3, "user": "u", "domain": "source", "familiar": "seen"}
        return results.frame_of([{**row, "worth": worth, "items": 4}], results.PERSONAL_COLUMNS)

    folder = begun(tmp_path / "run")
    for round, worth in ((0, 1.0), (2, 2.0), (2, 3.0)):  # the last is of the round that a resumed run repeats
        folder.measured("personal", of(round, worth))
    state = folder.state()
    folder.measured("personal", of(4, 4.0))
    again = RunFolder(tmp_path / "run")
    again.load(state)
    found = results.read(tmp_path / "run").personal
    assert found[["round", "worth"]].to_numpy().tolist() == [[0, 1.0], [2, 3.0]]
    assert again.state()["personal"] == state["personal"]
    before = {name: value for name, value in state.items() if name != "personal"}  # of an older version
    again.load(before)
    assert not (tmp_path / "run" / "personal.parquet").exists()
