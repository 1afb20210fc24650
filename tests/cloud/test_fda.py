"""The hypernetwork: what it generates, of what, and that order, absence and absurd values do no harm."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cdc_flower.cloud.fda import KINDS, Adaptor, Seen, clip_features, places
from cdc_flower.config import ConfigError
from cdc_flower.models.adapters import Layout

LAYOUT = Layout(
    ("m.lm_head.lora_A.default.weight", "m.lm_head.lora_B.default.weight", "m.norm.weight", "m.q.lora_A.w"),
    ((2, 3), (5, 2), (3,), (2, 3)),
)
BASE = np.arange(LAYOUT.total, dtype=np.float32)


def made(kind="basis", constant=False) -> Adaptor:
    """A hypernetwork that has learned something: its map is not zero."""
    adaptor = Adaptor(LAYOUT, BASE, kind, 9, 6, constant)
    torch.manual_seed(1)
    with torch.no_grad():
        adaptor.basis.normal_()
    return adaptor


def seen(m=4, seed=0) -> Seen:
    rng = np.random.default_rng(seed)
    return Seen(
        rng.normal(size=(m, 6)).astype(np.float32), [rng.integers(0, 9, 3).tolist() for _ in range(m)]
    )


def test_a_kind_says_which_tensors_are_generated():
    found = {kind: places(kind, LAYOUT).tolist() for kind in KINDS}
    assert found == {"basis": [*range(6, 19)], "scales": [16, 17, 18], "head": [*range(16)]}


def test_a_kind_that_the_adapter_has_not_is_refused():
    with pytest.raises(ConfigError, match="'mmpg.generate' = 'head'.*allowed: basis, scales$"):
        places("head", Layout(("m.norm.weight",), ((3,),)))


def test_before_anything_was_learned_every_device_has_version_0():
    np.testing.assert_array_equal(Adaptor(LAYOUT, BASE, "basis", 9, 6).adapter(seen()), BASE)


@pytest.mark.parametrize("kind", list(KINDS))
def test_only_what_is_generated_changes(kind):
    found, where = made(kind).adapter(seen()), places(kind, LAYOUT)
    rest = np.setdiff1d(np.arange(LAYOUT.total), where)
    np.testing.assert_array_equal(found[rest], BASE[rest])
    assert (found[where] != BASE[where]).all()
    assert found.dtype == np.float32


def test_order_does_not_matter_and_what_is_seen_does():
    adaptor, one = made(), seen()
    back = one.some([3, 1, 0, 2])
    np.testing.assert_allclose(adaptor.adapter(one), adaptor.adapter(back), atol=1e-5)
    assert not np.allclose(adaptor.adapter(one), adaptor.adapter(seen(seed=1)), atol=1e-2)


def test_a_constant_summary_makes_one_adapter_for_all():
    adaptor = made(constant=True)
    np.testing.assert_array_equal(adaptor.adapter(seen()), adaptor.adapter(seen(seed=1)))


def test_questions_count_without_their_clips_and_absurd_features_stay_finite():
    adaptor, one = made(), seen()
    absent, far = one.features.copy(), one.features.copy()
    absent[1:] = np.nan
    far[0] = 60_000
    alone = adaptor.adapter(Seen(absent, one.questions))
    other = adaptor.adapter(Seen(absent, [[8, 8, 8], *one.questions[1:]]))
    assert np.isfinite(alone).all()
    assert not np.allclose(alone, other, atol=1e-3)
    np.testing.assert_allclose(
        adaptor.adapter(Seen(far, one.questions)), adaptor.adapter(Seen(far * 2, one.questions)), atol=1e3
    )
    assert np.isfinite(adaptor.adapter(Seen(np.full((1, 6), 3e38, np.float32), [[]]))).all()


def test_features_tell_looks_from_motion():
    still = np.ones((3, 4, 2), np.float32)
    moving = still * np.array([0, 1, 2], np.float32)[:, None, None]
    np.testing.assert_allclose(clip_features(still), [1, 1, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(clip_features(moving)[[0, 1, 4, 5]], 1, atol=1e-6)
    assert clip_features(still[:1]).shape == (6,)


def test_a_frame_that_is_not_known_does_not_count():
    clip = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(clip_features(clip, np.full(5, 0.3)), clip_features(clip), rtol=1e-4)
    found = clip_features(clip, np.array([1, 1, 1, 1, 0.0]))
    np.testing.assert_allclose(found, clip_features(clip[:4]), rtol=1e-4)
    assert np.isfinite(clip_features(clip[:1], np.ones(1))).all()


def test_features_that_never_change_say_nothing():
    adaptor = made()
    rows = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
    rows[:, 2] = 5
    rows[4] = np.nan
    adaptor.standardise(rows)
    assert adaptor.scale[2] == 0
    assert torch.isfinite(adaptor.scale).all()
    np.testing.assert_allclose(adaptor.mean, rows[np.isfinite(rows).all(1)].mean(0), rtol=1e-5)
