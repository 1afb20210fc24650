"""A pair without a transform gets one from the cloud's own pictures when it is first used, once for all."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from cdc_flower.config import ConfigError, parse
from cdc_flower.data.world import load_world
from cdc_flower.models import transform
from cdc_flower.models.shared import load_shared
from cdc_flower.session import session
from strategies.run import prepare
from strategies.transforms import provided


@pytest.fixture
def bare(run_settings, pair_folder, tmp_path):
    """Settings of a run on two checkpoints with nothing beside them."""
    for role in ("teacher", "student"):
        shutil.copytree(pair_folder / role, tmp_path / "bare" / role)

    def make(**more):
        models = {f"pair.{role}": str(tmp_path / "bare" / role) for role in ("teacher", "student")}
        return run_settings(**{"pair.folder": "", **models, **more})

    yield make
    session().close()


def _file(tmp_path):
    return tmp_path / "bare" / "student" / transform.BARE / transform.FILE


def test_the_first_use_leaves_one_and_every_later_run_reads_it(bare, tmp_path):
    said = []
    first = prepare(parse(bare()), say=said.append)
    kept = _file(tmp_path).read_bytes()
    session().close()
    second = prepare(parse(bare(seed=5, method="static")), say=said.append)
    assert len(said) == 1
    assert _file(tmp_path).read_bytes() == kept
    assert first.digest == second.digest
    assert first.shared.transform.digest == second.shared.transform.digest


def test_the_same_pictures_give_the_same_bits_and_a_line_says_what_it_is(bare, tmp_path):
    found = []
    for _ in range(2):
        shutil.rmtree(_file(tmp_path).parent, ignore_errors=True)
        session().close()
        said = []
        setup = prepare(parse(bare()), say=said.append)
        found.append(setup.shared.transform.digest)
        (line,) = said
        for words in ("'student' had no transform", str(_file(tmp_path)), "bytes that a device gets"):
            assert words in line
    assert found[0] == found[1]


def test_no_device_picture_is_looked_at(bare, monkeypatch):
    config = parse(bare())
    shared = load_shared(config.pair, config.data.name)
    world = load_world(config, shared)
    held, read = world.train_tokens, []
    monkeypatch.setattr(transform, "estimate", lambda tokens: read.extend(tokens) or estimate(tokens))
    assert provided(config, shared, world, lambda _: None).transform is not None
    devices = {np.asarray(held[i]).tobytes() for i in range(len(held))}
    assert read
    assert not devices & {np.asarray(tokens).tobytes() for tokens in read}


@pytest.mark.parametrize("more", [{"uplink.transform": "none"}, {"token_bits": 16}, {"uplink_unit": "jpeg"}])
def test_none_is_made_where_none_is_used(bare, more, tmp_path):
    said = []
    assert prepare(parse(bare(**more)), say=said.append).shared.transform is None
    assert not said
    assert not _file(tmp_path).exists()


def test_where_none_can_be_kept_tokens_go_as_they_are_or_the_run_is_refused(bare, tmp_path):
    _file(tmp_path).parent.write_text("a file where the folder should be")
    said = []
    assert prepare(parse(bare()), say=said.append).shared.transform is None
    assert "they are sent as they are" in said[0]
    with pytest.raises(ConfigError, match="'uplink.transform' = 'pca': pair 'student' has no transform"):
        prepare(parse(bare(uplink_transform="pca")), say=said.append)


def test_a_wide_one_is_made_only_where_it_is_asked_for(bare, monkeypatch):
    monkeypatch.setattr(transform, "WIDEST", 2)
    said = []
    assert prepare(parse(bare()), say=said.append).shared.transform is None
    assert "need one of" in said[0]
    assert prepare(parse(bare(uplink_transform="pca")), say=said.append).shared.transform is not None


estimate = transform.estimate
