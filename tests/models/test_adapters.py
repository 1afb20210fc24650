"""Small LoRA layers train as one product: the same function and gradients, fewer passes."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from peft.tuners.lora import Linear as LoraLinear

from cdc_flower.models import adapters, vlm
from cdc_flower.models.student import device_model, twin_model


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
