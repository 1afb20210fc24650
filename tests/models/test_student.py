from __future__ import annotations

import bitsandbytes as bnb
import numpy as np
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from peft import PeftModel
from transformers import LlavaForConditionalGeneration

from cdc_flower.config import flat, parse
from cdc_flower.models import adapters, vlm
from cdc_flower.models.student import device_model, full_model, twin_model


@pytest.fixture(scope="module")
def inputs(shared):
    tokens = np.random.default_rng(0).normal(size=(3, shared.n_tokens, shared.width))
    return vlm.collate(shared.text, tokens, [shared.text.question_ids("where is the star?")] * 3)


def _with(config, compression):
    return parse({**flat(config), "pair.compression": compression}).pair


def test_the_language_model_is_nf4_and_nothing_else_is(shared, config):
    model = device_model(shared, config.pair)
    packed = [n for n, m in model.named_modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert len(packed) == 7 * model.get_base_model().config.text_config.num_hidden_layers
    assert all("language_model" in n for n in packed)


def test_the_twin_holds_the_devices_dequantised_weights_bit_for_bit(shared, config):
    device, twin = device_model(shared, config.pair), twin_model(shared, config.pair)
    plain = dict(twin.named_modules())
    checked = 0
    for name, layer in device.named_modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            want = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            assert torch.equal(plain[name].weight, want)
            checked += 1
    assert checked > 0


def test_nf4_moves_the_weights(shared, config):
    stored = LlavaForConditionalGeneration.from_pretrained(shared.path, dtype=torch.float32)
    twin = twin_model(shared, config.pair).get_base_model()
    a = stored.model.language_model.layers[0].mlp.up_proj.weight
    b = twin.model.language_model.layers[0].mlp.up_proj.base_layer.weight
    error = float(((a - b).norm() / a.norm()).detach())
    assert 0.02 < error < 0.2


BOUNDS = [("nf4", 1e-4), ("none", 1e-4), ("int4", 1e-4), ("int8", 5e-2)]


@pytest.mark.parametrize(("compression", "bound"), BOUNDS)
def test_device_and_twin_answer_alike(shared, config, inputs, compression, bound):
    # int8 layers of bitsandbytes also round their inputs, so there the twin is exact in the weights only.
    settings = _with(config, compression)
    a = vlm.forward(device_model(shared, settings), inputs).logits
    b = vlm.forward(twin_model(shared, settings), inputs).logits
    assert float((a - b).detach().abs().max()) <= bound


def test_twin_trained_is_device_running(shared, config, inputs):
    device, twin = device_model(shared, config.pair), twin_model(shared, config.pair)
    start = adapters.read(device)
    moved = start + np.random.default_rng(2).normal(0, 0.02, start.shape).astype(np.float32)
    try:
        adapters.write(device, moved)
        adapters.write(twin, moved)
        a, b = (vlm.forward(m, inputs).logits.detach() for m in (device, twin))
        assert float((a - b).abs().max()) <= 1e-4
        adapters.write(twin, start)
        assert float((vlm.forward(twin, inputs).logits.detach() - a).abs().max()) > 1e-3
    finally:
        adapters.write(device, start)


@pytest.mark.parametrize("compression", ["nf4", "none"])
def test_students_of_a_process_share_what_is_frozen_and_each_has_an_adapter_of_its_own(
    shared, config, compression
):
    settings = _with(config, compression)
    one, two, device = (
        twin_model(shared, settings),
        twin_model(shared, settings),
        device_model(shared, settings),
    )
    sharers = [one, two, device] if compression == "none" else [one, two]
    for model in sharers[1:]:
        for (name, a), (same, b) in zip(one.named_parameters(), model.named_parameters(), strict=True):
            assert name == same
            assert a.requires_grad == b.requires_grad
            assert (a is b) == (not a.requires_grad)
    first = adapters.read(device)
    try:
        adapters.write(one, first + 1)
        assert np.array_equal(adapters.read(two), first)
        assert np.array_equal(adapters.read(device), first)
        assert np.array_equal(adapters.read(twin_model(shared, settings)), first)
    finally:
        adapters.write(device, first)


def test_version_zero_answers_like_the_bare_student_and_is_the_same_everywhere(shared, config, inputs):
    one, two = twin_model(shared, config.pair), twin_model(shared, config.pair)
    assert np.array_equal(adapters.read(one), adapters.read(two))
    assert np.array_equal(adapters.read(one), adapters.read(device_model(shared, config.pair)))
    wrapped = vlm.forward(one, inputs).logits
    with one.disable_adapter():
        bare = vlm.forward(one, inputs).logits
    torch.testing.assert_close(wrapped, bare, rtol=0, atol=1e-4)  # weights rounded by at most 2**-21
    assert torch.equal(wrapped.argmax(-1), bare.argmax(-1))
    flat = adapters.read(one).astype(np.float64)
    assert (flat / adapters.GRID == np.rint(flat / adapters.GRID)).all()


def test_the_adapter_has_lora_projector_and_norms_and_no_vision_tower(shared, config):
    names = adapters.layout(twin_model(shared, config.pair)).names
    assert any("lora_A" in n for n in names)
    assert any("multi_modal_projector" in n for n in names)
    assert any("input_layernorm" in n for n in names)
    assert any("language_model.norm" in n for n in names)
    assert not any("vision_tower" in n for n in names)


def test_read_and_write_are_inverse_and_a_wrong_length_is_refused(shared, config):
    twin = twin_model(shared, config.pair)
    layout = adapters.layout(twin)
    flat_vector = np.random.default_rng(3).normal(size=layout.total).astype(np.float32)
    adapters.write(twin, flat_vector)
    assert np.array_equal(adapters.read(twin), flat_vector)
    with pytest.raises(ValueError, match="adapter vector has shape"):
        adapters.write(twin, flat_vector[:-1])


def test_the_adapter_loads_in_peft(shared, config, inputs, tmp_path):
    twin = twin_model(shared, config.pair)
    flat_vector = adapters.read(twin)
    flat_vector += np.random.default_rng(4).normal(0, 0.02, flat_vector.shape).astype(np.float32)
    adapters.write(twin, flat_vector)
    adapters.save(twin, tmp_path)
    bare = full_model(shared, config.pair).eval()
    loaded = PeftModel.from_pretrained(bare, str(tmp_path)).eval()
    want, got = (vlm.forward(m, inputs).logits.detach() for m in (twin, loaded))
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_full_model_trains_everything_but_the_tower(shared, config):
    names = adapters.layout(full_model(shared, config.pair)).names
    assert any("lm_head" in n for n in names)
    assert not any("vision_tower" in n or "lora" in n for n in names)
