"""What the cloud reads of anchor frames, of devices and of A alike, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cdc_flower.cloud.adr import Reasoner, trust
from cdc_flower.cloud.fda import clip_features
from cdc_flower.cloud.source import all_of_a
from cdc_flower.config import ConfigError, flat, parse
from cdc_flower.models import adapters
from cdc_flower.models.student import twin_model
from cdc_flower.wire.frame import FrameError
from strategies.generated import MmpgSettings, Reader, adaptor_of, check_generated, decides, users_of
from strategies.run import prepare, run_local


@pytest.fixture
def setup_of(clip_settings):
    return lambda **more: prepare(parse(clip_settings(method="mmpg", **more)))


def test_features_are_those_of_all_frames_and_questions_without_a_clip_have_none():
    rng = np.random.default_rng(0)
    clip = rng.normal(size=(4, 3, 2)).astype(np.float32)
    every = np.arange(12)
    whole, held = Reader(4, 2, "linear"), Reader(4, 2, "hold")
    found = whole.features([(every, clip.reshape(12, 2)), (every[:0], clip[:0, 0])], [(12, 4, 3)] * 2)
    np.testing.assert_allclose(found[0], clip_features(clip), rtol=1e-5)
    assert np.isnan(found[1]).all()
    one = held.whole(np.arange(3, 6), clip[1], 3)
    np.testing.assert_array_equal(one, np.stack([clip[1]] * 4))


def test_frames_that_the_reasoner_is_not_sure_of_count_less():
    rng = np.random.default_rng(0)
    clip, at = rng.normal(size=(1, 3, 2)).astype(np.float32), np.arange(3, 6)
    reasoner = Reasoner(4, 3, 2, hidden=8).eval()
    torch.nn.init.normal_(reasoner.end.weight)
    reader = Reader(4, 2, "learned", reasoner)
    found = reader.features([(at, clip[0])], [(12, 4, 3)])[0]
    whole = reader.whole(at, clip[0], 3)
    assert not np.allclose(found, clip_features(whole), atol=1e-3)
    with torch.no_grad():
        _, log_variance = reasoner(torch.from_numpy(clip)[None], torch.tensor([[1]]))
    np.testing.assert_allclose(
        found, clip_features(whole, trust(reasoner, log_variance)[0].numpy()), rtol=1e-5
    )


@pytest.mark.parametrize("positions", [[0, 1], [1, 2, 3], [0, 1, 2, 3]])
def test_tokens_that_are_no_whole_frames_are_refused(positions):
    tokens = np.zeros((len(positions), 2), np.float32)
    with pytest.raises(FrameError, match="anchor frames: .* not whole frames"):
        Reader(4, 2, "linear").features([(np.array(positions), tokens)], [(12, 4, 3)])


def test_users_of_a_are_read_over_the_wire_and_each_has_all_its_samples(setup_of):
    setup = setup_of()
    items = all_of_a(setup.config, setup.shared, setup.world)
    whole = MmpgSettings(frames=setup.shared.frames)
    users = users_of(setup, whole, items, Reader(setup.shared.frames, setup.shared.width, "linear"))
    assert sum(len(u.samples) for u in users) == len(items)
    assert [u.name for u in users] == sorted({item.user for item in items})
    sample, row = users[0].samples[0], users[0].seen.features[0]
    tokens = np.asarray(sample.tokens, np.float32)
    exact = clip_features(tokens.reshape(setup.shared.frames, -1, setup.shared.width))
    assert not np.array_equal(row, exact)
    assert np.corrcoef(row, exact)[0, 1] > 0.9  # three bits a value


def test_a_trained_state_is_of_its_settings_and_seed_and_a_control_has_none_of_its_own(setup_of):
    setup, own = setup_of(), MmpgSettings()
    said = decides(setup, own)
    assert decides(setup_of(seed=3), own) == {**said, "seed": 3}
    assert decides(setup_of(token_bits=8), own) != said
    for same in ({"summary": "shuffled"}, {"clips": 9}):
        assert decides(setup, replace(own, **same)) == said
    for other in ({"summary": "constant"}, {"generate": "basis"}, {"steps": 3}):
        assert decides(setup, replace(own, **other)) != said


@pytest.mark.parametrize(
    "measured", [{"data.items-per-domain": 2}, {"data.items": "tuning"}, {"data.tested": "all"}]
)
def test_which_items_are_measured_decides_neither_a_training_nor_what_it_reads(measured, clip_settings):
    found = []
    for more in ({}, measured):
        setup = prepare(parse({**clip_settings(method="mmpg"), **more}))
        items = all_of_a(setup.config, setup.shared, setup.world)
        read = [
            (i.user, i.answer, i.sample.question_ids, np.asarray(i.sample.tokens).tobytes()) for i in items
        ]
        found.append((decides(setup, MmpgSettings()), read, setup.world.test))
    (said, read, tested), (other_said, other_read, other_tested) = found
    assert (said, read) == (other_said, other_read)
    assert read
    assert not tested.equals(other_tested)


def test_every_seed_trains_a_hypernetwork_of_its_own_and_says_how_far_it_is(setup_of, tmp_path):
    made, told = {}, []
    for seed in (0, 1):
        setup = setup_of(seed=seed, **{"pair.token-cache": str(tmp_path)})  # where no test has trained one
        own = MmpgSettings(steps=2)
        setup = replace(setup, tell=lambda *how_far: told.append(how_far))
        twin = twin_model(setup.shared, setup.config.pair)
        reader = Reader(setup.shared.frames, setup.shared.width, "linear")
        found = adaptor_of(setup, own, reader, adapters.layout(twin), adapters.read(twin))
        made[seed] = found.state_dict()["basis"].numpy()
    assert not np.array_equal(made[0], made[1])
    assert told == [("hypernetwork", 1, 2), ("hypernetwork", 2, 2)] * 2


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"mmpg.frames": 4}, "'mmpg.frames' = 4: a sample has 3 frames"),
        ({"uplink.unit": "jpeg"}, "'uplink.unit' = 'jpeg': anchor frames go up as tokens"),
    ],
)
def test_what_cannot_be_generated_is_refused(wrong, says, setup_of):
    setup = setup_of()
    config = parse({**flat(setup.config), **wrong})
    with pytest.raises(ConfigError, match=says):
        check_generated(replace(setup, config=config), config.of(MmpgSettings))


def test_of_clips_of_one_frame_nothing_is_reconstructed_by_what_was_learned(setup_of):
    setup = setup_of()
    short = replace(setup, shared=replace(setup.shared, text=replace(setup.shared.text, frames=1)))
    check_generated(short, MmpgSettings())
    with pytest.raises(ConfigError, match="'mmpg.reconstruct' = 'learned': clips of pair 'clips' have one"):
        check_generated(short, MmpgSettings(reconstruct="learned"))


@pytest.mark.parametrize("method", ["mmpg", "duet", "mmpg_cdc"])
def test_pictures_are_refused_before_the_first_round(method, run_settings):
    settings = run_settings(method=method)
    with pytest.raises(
        ConfigError, match=f"'{method}': .* data 'scenes' are pictures; allowed: another meth"
    ):
        run_local(parse(settings))
    assert not list(Path(settings["run.out-dir"]).glob("*.parquet"))
