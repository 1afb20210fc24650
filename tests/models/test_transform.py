"""Claims about the transform of tokens: orthonormal, estimated from tokens alone, and only ever that of its
tower.
"""

import dataclasses

import numpy as np
import pytest
from safetensors.numpy import save_file

from cdc_flower.config import ConfigError
from cdc_flower.models import transform
from cdc_flower.models.transform import GROUPS, Transform
from cdc_flower.uplink import token_batch
from tests import memory

D = 12
TOWER = "tower one"


def mixed(pictures=60, seed=0):
    """Tokens (pictures, 10, D) float16 whose components are correlated and not centred."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(1).standard_normal((D, D)) * 2.0 ** -np.arange(D)[:, None]
    return (rng.standard_normal((pictures, 10, D)) @ mix + 3).astype(np.float16)


@pytest.fixture
def found() -> Transform:
    return transform.estimate(mixed())


def test_components_are_uncorrelated_in_order_of_variance_and_centred(found):
    flat = mixed().reshape(-1, D).astype(np.float64)
    components = found.forward(flat - found.mean)
    covariance = components.T @ components / len(flat)
    np.testing.assert_allclose(covariance, np.diag(found.variance), atol=1e-5 * found.variance[0])
    np.testing.assert_allclose(components.mean(axis=0), 0, atol=1e-5)
    assert (np.diff(found.variance) <= 0).all()


def test_forward_and_inverse_keep_tokens_and_lengths(found):
    flat = mixed(seed=5).reshape(-1, D).astype(np.float32)
    components = found.forward(flat - found.mean)
    np.testing.assert_allclose(found.inverse(components), flat, atol=1e-4)
    np.testing.assert_allclose(
        np.linalg.norm(components, axis=1), np.linalg.norm(flat - found.mean, axis=1), rtol=1e-5
    )


@pytest.mark.parametrize("variance", [np.ones(D), np.zeros(D), 4.0 ** -np.arange(D), [1e9] + [0] * (D - 1)])
def test_groups_cover_all_components_in_order(variance):
    some = Transform(np.zeros(D, np.float32), np.eye(D, dtype=np.float32), np.asarray(variance, np.float32))
    assert [k for group in some.groups for k in range(D)[group]] == list(range(D))
    assert len(some.groups) <= GROUPS
    assert all(group.stop > group.start for group in some.groups)


def test_edges_of_groups_are_exact():
    """A component j/8 of the way in log variance is in group j, one float32 above it is not."""
    edges = 2.0 ** -np.arange(1, 9, dtype=np.float32)
    variance = np.stack((np.nextafter(edges, np.float32(1)), edges), axis=1).ravel()
    variance = np.append(np.float32(1), variance)
    some = Transform(np.zeros(17, np.float32), np.eye(17, dtype=np.float32), variance)
    assert [(g.start, g.stop) for g in some.groups] == [*((k, k + 2) for k in range(0, 14, 2)), (14, 17)]


def test_a_transform_is_the_same_however_many_pictures_are_read_together(monkeypatch, found):
    monkeypatch.setattr(transform, "_BLOCK", 7)
    other = transform.estimate(mixed())
    np.testing.assert_allclose(other.mean, found.mean, rtol=1e-6)
    np.testing.assert_allclose(other.variance, found.variance, rtol=1e-5, atol=1e-6)


def test_estimating_holds_a_block_of_tokens_at_a_time():
    tokens = np.zeros((3000, 20, D), np.float16)
    tokens[:, :, 0] = 1
    peak = memory.peak(lambda: transform.estimate(tokens, pictures=3000), calls=1)
    assert peak < tokens.size  # a float64 copy of all takes eight times that


def test_it_comes_back_from_a_pair_folder_and_only_for_its_tower(found, tmp_path):
    assert transform.load(tmp_path, D, TOWER) is None
    transform.save(found, tmp_path, TOWER)
    back = transform.load(tmp_path, D, TOWER)
    assert back is not None
    assert back.digest == found.digest
    assert back.axes.tobytes() == found.axes.tobytes()
    assert transform.load(tmp_path, D, "another tower") is None


def test_the_digest_names_every_number(found):
    digests = {
        dataclasses.replace(found, **{name: np.nextafter(getattr(found, name), np.float32(9))}).digest
        for name in ("mean", "axes", "variance")
    }
    assert len(digests | {found.digest}) == 4


def test_a_file_that_is_not_a_transform_is_refused(found, tmp_path):
    with pytest.raises(ConfigError, match="width 13"):
        transform.load(transform.save(found, tmp_path, TOWER).parent, 13, TOWER)
    transform.save(dataclasses.replace(found, axes=found.axes * 2), tmp_path, TOWER)
    with pytest.raises(ConfigError, match="not orthonormal"):
        transform.load(tmp_path, D, TOWER)
    path = transform.save(found, tmp_path, TOWER)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ConfigError, match="damaged"):
        transform.load(tmp_path, D, TOWER)
    path.write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match="not a transform"):
        transform.load(tmp_path, D, TOWER)


def outlying(pictures=60, seed=0):
    """Tokens with one channel of twenty times the deviation of the others, and one far from zero."""
    tokens = np.random.default_rng(seed).standard_normal((pictures, 10, D))
    tokens[..., 3] *= 20
    tokens[..., 5] += 30
    return tokens.astype(np.float32)


def test_outlying_channels_do_not_coarsen_the_others(tmp_path):
    turn = transform.estimate(outlying())
    assert turn.scale.tolist() == [16.0 if k == 3 else 1.0 for k in range(D)]
    flat = outlying(seed=5).reshape(-1, D)
    others = [k for k in range(D) if k not in (3, 5)]
    for bits, most in ((3, 0.3), (4, 0.15)):
        symbols, scales = token_batch._spread(flat, bits, turn)
        back = turn.inverse(token_batch.dequantize(symbols, scales))
        wrong = np.linalg.norm((back - flat)[:, others]) / np.linalg.norm(flat[:, others])
        assert wrong < most
        plain = token_batch.dequantize(*token_batch.quantize(flat, bits))
        assert np.linalg.norm((plain - flat)[:, others]) / np.linalg.norm(flat[:, others]) > 3 * wrong
    back = transform.load(transform.save(turn, tmp_path, TOWER).parent, D, TOWER)
    assert back is not None
    assert back.digest == turn.digest != dataclasses.replace(turn, scale=np.ones(D, np.float32)).digest


def test_pictures_may_have_different_numbers_of_tokens(found):
    parts = [row[:n] for row in mixed() for n in (4, 0)] + [row[4:] for row in mixed()]
    np.testing.assert_allclose(transform.estimate(parts).variance, found.variance, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        ({"scale": np.full(D, 3, np.float32)}, "power of two"),
        ({"scale": np.full(D, 0.5, np.float32)}, "power of two"),
        ({"scale": np.full(D, np.inf, np.float32)}, "power of two"),
        ({"variance": np.full(D, np.inf, np.float32)}, "order of their variance"),
        ({"variance": np.full(D, -1, np.float32)}, "order of their variance"),
        ({"mean": np.zeros(D, np.float64)}, "allowed: float32"),
        ({"axes": np.zeros((D, 2 * D), np.float32)}, "allowed: float32"),
        ({"mean": np.full(D, np.nan, np.float32)}, "orthonormal"),
    ],
)
def test_a_hostile_file_is_one_error_that_says_what_helps(found, tmp_path, array, said):
    turn = dataclasses.replace(found, **array)
    arrays = {name: getattr(turn, name) for name in ("mean", "axes", "variance", "scale")}
    meta = {"tower": TOWER, "digest": turn.digest.hex()}
    save_file({k: v for k, v in arrays.items() if v.shape != (1,)}, tmp_path / transform.FILE, meta)
    with pytest.raises(ConfigError, match=said) as caught:
        transform.load(tmp_path, D, TOWER)
    assert "\n" not in str(caught.value)
    assert "delete it" in str(caught.value)


def test_an_estimate_needs_as_many_tokens_as_components():
    with pytest.raises(ValueError, match="10 tokens of width 12"):
        transform.estimate(mixed(1))
