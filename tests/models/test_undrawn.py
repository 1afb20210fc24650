"""What is opened is the same whether or not values were drawn that its files replace."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from cdc_flower.models import folders
from cdc_flower.models.families import FAMILIES
from cdc_flower.models.undrawn import Undrawn


def test_nothing_is_drawn_on_meta_and_everything_elsewhere():
    torch.manual_seed(0)
    with Undrawn():
        drawn, layer = torch.randn(3), nn.Linear(3, 2)
        state = torch.get_rng_state()
        with torch.device("meta"):
            nowhere, words, places = 2 * torch.randn(2, 3), nn.Embedding(5, 4), torch.arange(1, 7, 2) / 3
    assert (nowhere.shape, words.weight.shape) == ((2, 3), (5, 4))
    assert words.weight.is_meta
    assert places.tolist() == pytest.approx([1 / 3, 1, 5 / 3])
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.randn(3))
    assert torch.equal(layer.weight, nn.Linear(3, 2).weight)


@pytest.mark.slow
def test_a_checkpoint_of_each_family_has_the_same_values(name, tiny_folders, monkeypatch):
    path = str(tiny_folders[name])
    family = FAMILIES[folders.config_of(path, "student").model_type]

    def values():
        model = folders.opened(family.model_class, path, "student", dtype=torch.float32)
        return {**dict(model.named_parameters()), **dict(model.named_buffers())}

    found = values()
    monkeypatch.setattr(folders, "Undrawn", nullcontext)
    plain = values()
    assert found.keys() == plain.keys()
    assert all(t.device.type == "cpu" and torch.equal(t, plain[key]) for key, t in found.items())
