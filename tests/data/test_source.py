"""What a device reads is all that it needs, and nothing of it says what is right."""

from __future__ import annotations

import copy
import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from cdc_flower import results
from cdc_flower.config import ConfigError, parse
from cdc_flower.data import packs
from cdc_flower.data.source import files, folder_of, publish, source
from cdc_flower.data.world import load_world
from cdc_flower.fleet.engines.fleet_grid import FleetGrid
from cdc_flower.session import session
from strategies.run import BUNDLE, CLIENT_APP, run, run_local


@pytest.fixture
def published(run_settings, shared, tmp_path):
    """`published(**settings)`: config, world and folder of a run whose streams were published."""

    def make(labels=False, **settings):
        config = parse(run_settings(**settings))
        world = load_world(config, shared)
        return config, world, publish(config, shared, world, labels=labels)

    return make


def test_a_device_finds_its_stream_by_its_run_config_alone(published, shared):
    config, world, _ = published()
    for device in (0, 2):
        own = source(config, shared, device)
        for round in (1, 3):
            items = own.items(round)
            np.testing.assert_array_equal(items, world.streams[device][round - 1])
            for item in items:
                row = world.train.iloc[item]
                np.testing.assert_array_equal(own.tokens(item), world.train_tokens[row["image_row"]])
                assert own.grid(item) == world.train_tokens.grid(row["image_row"])
                assert own.question(item) == row["question"]
    asked = max(len(shared.text.question_ids(q)) for q in world.train["question"].unique())
    assert own.longest == len(shared.text.prefix_ids()) + asked


def test_other_settings_of_the_data_are_another_folder_and_other_methods_are_not(published, shared):
    config, _, folder = published()
    assert folder_of(parse({**vars_of(config), "run.method": "static"}), shared) == folder
    unlike = {**vars_of(config), "run.seed": 977}  # of no other test: they share a cache
    for key, value in (("run.seed", 978), ("run.rounds", 4), ("drift.ramp", 3), ("data.items", "tuning")):
        other = parse({**unlike, key: value})
        assert folder_of(other, shared) not in (folder, folder_of(parse(unlike), shared))
        with pytest.raises(ConfigError, match="no streams of this run"):
            source(other, shared, 0)


def test_tokens_of_another_picture_processor_are_another_folder(published, shared):
    config, _, folder = published()
    processor = copy.copy(shared.processor)
    processor.image_mean = (0.9, 0.1, 0.5)
    assert folder_of(config, replace(shared, processor=shared.processor)) == folder
    assert folder_of(config, replace(shared, processor=processor)) != folder


def vars_of(config):
    from cdc_flower.config import flat

    return flat(config)


def test_labels_are_in_no_file_but_their_own(published):
    _, world, folder = published(labels=True)
    (labels,) = folder.parent.parent.glob(f"labels/{folder.name}.json")
    assert json.loads(labels.read_text()) == world.train["answer"].tolist()
    assert {path.name for path in folder.iterdir()} == {
        "streams.npy",
        "rows.npy",
        "meta.json",
        "questions.json",
        "compression.json",
    }
    assert set(json.loads((folder / "questions.json").read_text())) == set(world.train["question"])


def test_pictures_are_there_where_they_go_up(published, shared):
    config, world, _ = published(uplink_unit="jpeg")
    own = source(config, shared, 1)
    for item in own.items(1):
        assert own.picture(item) == world.pack.train_images[world.train["image_id"].iloc[item]]


def test_what_was_published_is_left_alone_and_what_another_pack_left_is_replaced(published, shared):
    config, world, folder = published()
    before = (folder / "meta.json").stat().st_mtime_ns
    assert publish(config, shared, world) == folder
    assert (folder / "meta.json").stat().st_mtime_ns == before
    (folder / "meta.json").write_text("{}")
    (folder / "questions.json").write_text("[]")
    publish(config, shared, world)
    assert source(config, shared, 0).question(0) == world.train["question"].iloc[0]
    assert [p.name for p in folder.parent.iterdir() if p.name.startswith(".")] == []


@contextmanager
def hidden(*paths: Path):
    """Nobody can open these for a while."""
    away = [path.rename(path.with_name(f"{path.name}.hidden")) for path in paths]
    try:
        yield
    finally:
        for path, there in zip(paths, away, strict=True):
            there.rename(path)


class Hiding(FleetGrid):
    """While devices work, what is not theirs is gone."""

    paths: tuple[Path, ...] = ()

    def send_and_receive(self, messages, *, timeout=None):
        with hidden(*self.paths):
            return super().send_and_receive(messages, timeout=timeout)


@pytest.mark.filterwarnings(
    "ignore:.*subprocess .* is still running:ResourceWarning", "ignore:unclosed file:ResourceWarning"
)
def test_devices_work_without_teacher_pack_test_items_and_labels(
    run_settings, pair_folder, settings, tmp_path
):
    pack = packs.load(parse(run_settings()).data, seed=1)
    frames = [
        frame.assign(image=[images[name] for name in frame["image_id"]])
        for frame, images in ((pack.train, pack.train_images), (pack.test, pack.test_images))
    ]
    packs.write_pack(tmp_path / "pack", *frames)
    own = run_settings(pack=str(tmp_path / "pack"), token_cache=str(tmp_path / "cache"), rounds=2)
    local = results.read(run_local(parse(own)))
    own["run.out-dir"] = str(tmp_path / "fleet")
    session().close()
    (labels := tmp_path / "cache" / "labels").mkdir(exist_ok=True)
    with Hiding(CLIENT_APP, 3, own, bundle=BUNDLE, workers=1) as grid:
        tests = (tmp_path / "cache" / "tokens").glob("*-test*.npy")
        grid.paths = (pair_folder / "teacher", tmp_path / "pack", labels, *tests)
        found = results.read(run(grid, Context(1, 1, {}, RecordDict(), own)))
    assert found.status == "completed"
    assert set(found.devices["status"]) == {"ok"}
    assert found.run["ledger_digest"] == local.run["ledger_digest"]
    assert (pair_folder / "teacher").is_dir()


def test_files_are_named_as_they_lie_in_the_cache_and_labels_are_asked_for(published, shared, tmp_path):
    config, _, folder = published(labels=True)
    cache = Path(config.pair.token_cache)
    found = files(config, shared)
    assert {cache / name for name in found} == set(found.values())
    assert folder / "streams.npy" in found.values()
    assert sum(name.endswith(".index.npy") for name in found) == 1
    assert not [name for name in found if "labels" in name]
    more = files(config, shared, labels=True)
    assert [name.partition("/")[0] for name in more.keys() - found.keys()] == ["labels"]
