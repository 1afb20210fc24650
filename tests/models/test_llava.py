"""What is LLaVA's own: which hidden states are tokens, and that every picture has the same number."""

from __future__ import annotations

import copy

import numpy as np
import torch

from cdc_flower.data.features import Grid
from cdc_flower.models.llava import Llava


def test_every_picture_has_the_towers_patches(make):
    made = make("pair")
    assert made.grids == [Grid(64, 8, 8)] * 3
    assert made.shared.fits((64, 8, 8))
    assert not made.shared.fits((64, 4, 16))


@torch.no_grad()
def test_several_layers_stand_side_by_side(make):
    made = make("pair")
    several = copy.deepcopy(made.shared.config)
    several.vision_feature_layer = [-2, -1]
    found = Llava().encode(made.shared.tower, several, made.shared.processor, made.images[:1])
    ((tokens, _),) = found
    assert tokens.shape == (64, Llava().width(several)) == (64, 128)
    np.testing.assert_allclose(tokens[:, 64:], made.tokens[0], atol=2e-3)
    assert Llava().tower_key(several) != Llava().tower_key(made.shared.config)
