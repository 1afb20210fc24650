"""A patch is linear in its vector, and its gradient is the transpose."""

from __future__ import annotations

import numpy as np
import pytest

from cdc_flower.models.adapters import Layout
from cdc_flower.models.patches import Basis

LAYOUT = Layout(("a.lora_A.x", "a.lora_B.x", "norm"), ((4, 8), (8, 4), (6,)))


@pytest.mark.parametrize("size", [1, 5, 100])
def test_a_patch_and_its_gradient_are_one_matrix_and_its_transpose(size):
    basis, rng = Basis.of(LAYOUT, size), np.random.default_rng(0)
    flat = rng.normal(size=LAYOUT.total).astype(np.float32)
    matrix = np.stack(
        [basis.patched(np.zeros_like(flat), unit) for unit in np.eye(size, dtype=np.float32)], axis=1
    )
    z, gradient = rng.normal(size=(size,)).astype(np.float32), rng.normal(size=flat.shape).astype(np.float32)
    np.testing.assert_allclose(basis.patched(flat, z), flat + matrix @ z, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(basis.gradient(gradient), matrix.T @ gradient, rtol=1e-5, atol=1e-5)
    assert set(np.abs(matrix).ravel()) <= {0.0, 1.0}
    assert not matrix[:32].any()  # LoRA's inner factor is left alone
    assert (np.abs(matrix[32:]).sum(1) == 1).all()
    again = Basis.of(LAYOUT, size)
    np.testing.assert_array_equal(again.follows, basis.follows)
    np.testing.assert_array_equal(again.sign, basis.sign)
