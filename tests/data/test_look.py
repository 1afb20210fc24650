"""What a pack is like before a run: axes of drift with their values, and what to mind."""

import dataclasses

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cdc_flower.config import ConfigError, parse
from cdc_flower.data import look, packs


def pack(config, **columns):
    """Generated pictures, with columns of one's own."""
    found = packs.load(config.data, seed=1)
    return dataclasses.replace(found, train=found.train.assign(**columns), test=found.test.assign(**columns))


SMALL = {"data.scenes-train": 60, "data.scenes-test": 20, "run.devices": 2, "run.rounds": 2}
KNOWN = {"data.known-objects": "old shapes", "data.known-questions": "what,where,yesno"}


def test_each_axis_has_its_values_known_and_new_with_the_rows_of_both_splits():
    config = parse({**SMALL, **KNOWN, "run.samples-per-round": 4})
    found = pack(config)
    objects, questions, styles = look.axes(found, config)
    rows = objects.values.set_index("value")
    assert rows["known"].to_dict() == {"old shapes": True, "new shapes": False}
    for split, frame in (("train", found.train), ("test", found.test)):
        assert rows[split].to_dict() == frame["concept"].value_counts().to_dict()
    assert set(questions.values.loc[questions.values["known"], "value"]) == {"what", "where", "yesno"}
    assert (styles.said, styles.values["known"].all()) == ("", True)
    assert (styles.setting, styles.column) == ("data.known-styles", "domain")


def test_a_value_that_is_only_in_test_is_counted_and_an_absent_column_is_empty():
    config = parse({**SMALL, "data.known-questions": "what,where"})
    found = pack(config)
    found = dataclasses.replace(
        found,
        train=found.train.drop(columns="concept"),
        test=found.test.assign(qtype=["else", *found.test["qtype"][1:]]),
    )
    objects, questions, _ = look.axes(found, config)
    assert objects.values.empty
    new = questions.values.set_index("value").loc["else"]
    assert (bool(new["known"]), int(new["train"]), int(new["test"])) == (False, 0, 1)


def test_a_setting_that_names_nothing_there_is_refused():
    config = parse({**SMALL, "data.known-objects": "cups"})
    with pytest.raises(ConfigError, match="has no value 'cups'"):
        look.axes(pack(config), config)
    found = pack(config)
    bare = dataclasses.replace(found, train=found.train.drop(columns="concept"))
    with pytest.raises(ConfigError, match="needs column 'concept'"):
        look.axes(bare, config)


def said(settings, change=lambda pack: pack):
    config = parse({**SMALL, **settings})
    return look.warnings(change(pack(config)), config)


def test_few_items_and_a_stream_that_repeats_are_said():
    lines = said({**KNOWN, "run.samples-per-round": 64, "data.known-objects": ""})
    assert any(line.startswith("Few test items: source has ") and "±" in line for line in lines)
    (stream,) = [line for line in lines if line.startswith("The stream repeats")]
    assert "2 of 2 devices meet rows again; each is asked 128 questions about" in stream


def test_nothing_is_said_of_many_items_and_a_stream_that_does_not_repeat(monkeypatch):
    monkeypatch.setattr(look, "FEW", 10)
    assert said({"data.known-questions": "what,where,yesno", "run.samples-per-round": 4}) == []


def test_no_drift_and_an_axis_without_rows_are_said():
    assert said({"run.samples-per-round": 4})[0].startswith("Nothing drifts: all values are known")
    lines = said({"drift.axes": "style", "data.known-objects": "old shapes", "run.samples-per-round": 4})
    assert lines[0].startswith("drift.axes = style, but train or test has no row of style")


def test_a_stream_that_cannot_be_is_said_with_the_reason():
    lines = said({**KNOWN, "run.devices": 99999})
    assert lines[-1].startswith("No run: setting 'run.devices' = 99999")


def test_rows_of_a_pack_in_a_folder_are_those_that_devices_meet(monkeypatch):
    """Half of the train rows are A's: with all of them the stream would not repeat."""
    config = parse({**SMALL, "data.known-questions": "what,where,yesno", "run.samples-per-round": 40})
    found = pack(config)
    assert not any("repeats" in line for line in look.warnings(found, config))
    mine = dataclasses.replace(config, data=dataclasses.replace(config.data, pack="mine"))
    assert any("repeats" in line for line in look.warnings(found, mine))


def test_the_interval_is_the_binomial_one():
    assert look.uncertainty(100) == pytest.approx(9.8)


def test_of_generated_clips_captions_are_not_asked(monkeypatch):
    config = parse({"data.pack": "clips", "data.clips-users": 8, "data.clips-each": 2, "run.devices": 2})
    found = packs.load(config.data, seed=1)
    assert "caption" in set(found.train["qtype"])
    asked = []
    monkeypatch.setattr(look, "partition", lambda rows, *_: asked.append(rows) or [rows.index.to_numpy()] * 2)
    look.warnings(found, config)
    assert "caption" not in set(asked[0]["qtype"])


def test_whether_samples_are_clips_is_told_by_the_columns(tmp_path):
    assert [look.of_clips(parse({"data.pack": name}).data) for name in ("scenes", "clips")] == [False, True]
    texts = ("question", "answer", "qtype", "domain", "user")
    for own in (
        {"image": pa.binary(), "image_id": pa.string()},
        {"frames": pa.list_(pa.binary()), "clip_id": pa.string(), "fps": pa.float64()},
    ):
        folder = tmp_path / next(iter(own))
        folder.mkdir()
        columns = {**own, **dict.fromkeys(texts, pa.string())}
        for split in ("train", "test"):
            pq.write_table(pa.schema(columns.items()).empty_table(), folder / f"{split}.parquet")
        assert look.of_clips(parse({"data.pack": str(folder)}).data) == ("frames" in own)
    with pytest.raises(ConfigError, match="no such folder"):
        look.of_clips(parse({"data.pack": str(tmp_path / "none")}).data)
