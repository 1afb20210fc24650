"""Kinds of adapters, and small LoRA layers that train as one product: the same function, fewer passes."""

from __future__ import annotations

import copy
from dataclasses import replace
from math import prod
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from peft.tuners.lora import Linear as LoraLinear

from cdc_flower.models import adapters, export, vlm
from cdc_flower.models.student import device_model, twin_model
from cdc_flower.stages import PairConfig


def _loss(shared, model):
    tokens = torch.randn(2, shared.n_tokens, shared.width, generator=torch.Generator().manual_seed(1)).numpy()
    questions = [shared.text.question_ids("what is this?"), shared.text.question_ids("what colour is it?")]
    inputs = vlm.collate(shared.text, tokens, questions, [[4, 5], [6]])
    return vlm.forward(model, inputs).logits.square().mean()


def _moved(shared, config):
    twin = twin_model(shared, replace(config.pair, lora_rank=16))
    with torch.random.fork_rng():
        torch.manual_seed(2)
        for p in adapters.trainable(twin):
            p.data += 0.1 * torch.randn_like(p)
    return twin


def test_train_merged_has_the_gradients_of_peft(shared, config):
    plain, calls = _moved(shared, config), []
    merged = adapters.train_merged(copy.deepcopy(plain))
    for layer in merged.modules():
        if isinstance(layer, LoraLinear):
            layer.lora_A["default"].register_forward_hook(lambda *a: calls.append(a))
    grads = []
    for model in (plain, merged):
        _loss(shared, model.train()).backward()
        grads.append(torch.cat([p.grad.flatten() for p in adapters.trainable(model)]))
    assert not calls  # otherwise peft's own way was taken, and the comparison says nothing
    assert grads[0].norm() > 0
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-6)


def test_train_merged_answers_with_the_same_bits(shared, config):
    plain = _moved(shared, config).eval()
    merged = adapters.train_merged(copy.deepcopy(plain)).eval()
    with torch.no_grad():
        assert _loss(shared, plain) == _loss(shared, merged)


def test_train_merged_leaves_wide_and_quantised_layers(shared, config):
    quantised = copy.deepcopy(device_model(shared, replace(config.pair, lora_rank=16)))
    wide = twin_model(shared, replace(config.pair, lora_rank=1))
    for model in (quantised, wide):
        layers = [m for m in adapters.train_merged(model).modules() if isinstance(m, LoraLinear)]
        assert layers
    small = [m for m in quantised.modules() if isinstance(m, LoraLinear) and "forward" in vars(m)]
    assert all(type(m.base_layer) is torch.nn.Linear for m in small)
    assert not [m for m in wide.modules() if isinstance(m, LoraLinear) and "forward" in vars(m)]


def test_kinds_are_those_of_the_setting():
    assert tuple(adapters.KINDS) == get_args(get_type_hints(PairConfig)["adapter"])


@pytest.mark.parametrize("name", ["smolvlm", "qwen2_5_vl", "internvl"])
@torch.no_grad()
def test_norms_biases_and_scales_are_an_adapter_too(name, make, tmp_path):
    made = make(name)
    inputs = vlm.collate(made.shared.text, made.tokens, made.asked, grids=made.grids)
    want = vlm.forward(made.model, inputs).logits
    bare = PairConfig(adapter="norms", compression="none")
    twin = twin_model(made.shared, bare)
    found = adapters.layout(twin)
    assert all(prod(shape) == max(shape) for shape in found.shapes)
    assert found.total < adapters.layout(twin_model(made.shared, PairConfig(lora_rank=2))).total
    for part in (
        "down_proj.ia3",
        "input_layernorm.weight",
        "language_model.norm" if name != "smolvlm" else "",
    ):
        assert any(part in n for n in found.names), part
    assert any(n.endswith("bias") for n in found.names) == (name != "smolvlm")  # Llama has none
    tower = {id(p) for p in made.shared.tower.parameters()}
    assert not any(id(p) in tower for p in adapters.trainable(twin))
    torch.testing.assert_close(vlm.forward(twin, inputs).logits, want, atol=1e-4, rtol=1e-3)

    flat = adapters.read(twin)
    moved = (flat + np.random.default_rng(0).normal(0, 0.05, len(flat))).astype(np.float32)
    adapters.write(twin, moved)
    changed = vlm.forward(twin, inputs).logits
    assert not torch.allclose(changed, want, atol=1e-3)
    export.as_checkpoint(twin, made.shared, tmp_path)
    model, report = type(made.model).from_pretrained(tmp_path, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    torch.testing.assert_close(vlm.forward(model.eval(), inputs).logits, changed, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_the_twin_of_an_adapter_of_norms_answers_as_its_device(make):
    made = make("llava_onevision")
    inputs = vlm.collate(made.shared.text, made.tokens, made.asked, grids=made.grids)
    found = []
    for model in (of(made.shared, PairConfig(adapter="norms")) for of in (device_model, twin_model)):
        flat = adapters.read(model)
        adapters.write(model, (flat + np.random.default_rng(0).normal(0, 0.05, len(flat))).astype(np.float32))
        found.append(vlm.forward(model, inputs).logits)
        adapters.write(model, flat)
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)
