"""Layers in 4 bits: what the kernel multiplies with is what we say, whatever the shape."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cdc_flower.models import int4
from cdc_flower.models.families import FAMILIES
from cdc_flower.models.int4 import Int4Config, Int4Linear
from tests import tiny
from tests.models.conftest import WORDS

SHAPES = [(64, 64, True), (32, 8, False), (96, 100, True), (448, 2048, True)]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def layer(inputs, outputs, bias):
    torch.manual_seed(0)
    plain = nn.Linear(inputs, outputs, bias)
    return plain, Int4Linear.of(plain)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_multiplies_with_exactly_these_values(shape):
    plain, made = layer(*shape)
    known = made.values()
    assert known.shape == plain.weight.shape
    # A row of the identity picks one value of each output; the kernel rounds what it answers, to bfloat16.
    picked = torch.ops.aten._weight_int4pack_mm_for_cpu(
        torch.eye(shape[0]).bfloat16(), made.weight, made.group, made.scales
    )
    assert torch.equal(picked[:, : shape[1]].T, known.bfloat16())
    # Sums show what the roundings of single values hide: rows of two entries, answers near zero.
    pairs = torch.zeros(shape[0] - 1, shape[0])
    pairs[range(len(pairs)), range(len(pairs))], pairs[range(len(pairs)), range(1, shape[0])] = 1, -1
    found = torch.ops.aten._weight_int4pack_mm_for_cpu(pairs.bfloat16(), made.weight, made.group, made.scales)
    assert torch.equal(found[:, : shape[1]].T, (known[:, :-1] - known[:, 1:]).bfloat16())
    assert 0.02 < float((known - plain.weight).norm() / plain.weight.norm()) < 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sequence_is_multiplied_in_float_and_a_step_by_the_kernel(shape):
    plain, made = layer(*shape)
    x = torch.randn(3, 5, shape[0])
    want = F.linear(x, made.values(), plain.bias)
    assert torch.equal(made(x), want)
    step = made(x[:, :1])
    assert not torch.equal(step, want[:, :1])
    assert float((step - want[:, :1]).abs().max() / want.abs().max()) < 0.01  # rows and answers in bfloat16
    assert torch.equal(made(x[0]), want[0])  # rows without steps


def test_the_bits_of_a_row_do_not_depend_on_others():
    _, made = layer(448, 2048, True)
    x = torch.randn(33, 1, 448)
    whole = made(x)
    for some in ([0], [3, 1], range(4), [32, *range(16)]):
        assert torch.equal(made(x[list(some)]), whole[list(some)])


def test_every_weight_gets_the_nearest_value_of_its_group():
    plain = nn.Linear(64, 64, bias=False)
    plain.weight.data = 3 + 0.1 * torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    made = Int4Linear.of(plain)
    scale, zero = made.scales[0].float().unbind(-1)
    values = (torch.arange(16) - 8) * scale[:, None] + zero[:, None]
    off = (values[:, None] - plain.weight[..., None]).abs().amin(-1)
    assert torch.allclose((made.values() - plain.weight).abs(), off, atol=1e-6)


def test_groups_of_equal_weights_and_of_zeros_are_kept():
    plain = nn.Linear(64, 16, bias=False)
    plain.weight.data = torch.zeros(16, 64)
    plain.weight.data[3] = 0.5
    known = Int4Linear.of(plain).values()
    assert torch.equal(known, plain.weight)


def test_the_order_of_a_processor_is_learned(monkeypatch):
    plain, made = layer(64, 64, False)

    def other(symbols):  # neighbours in a byte, tiles of 16
        tiles = symbols.view(-1, 8, 2, symbols.shape[1])
        return (tiles[:, :, 0] | tiles[:, :, 1] << 4).to(torch.uint8).view(-1, 8, symbols.shape[1])

    def packed(symbols):
        return other(symbols).transpose(1, 2).reshape(len(symbols), -1).contiguous()

    want = made.values()
    int4._layout.cache_clear()
    monkeypatch.setattr(int4, "_pack", packed)
    try:
        assert int4._layout()[0] == 16
        assert torch.equal(Int4Linear.of(plain).values(), want)
        int4._layout.cache_clear()
        monkeypatch.setattr(int4, "_pack", lambda symbols: packed(symbols).view(-1).roll(3))
        with pytest.raises(RuntimeError, match="order that is not known"):
            int4._layout()
    finally:
        int4._layout.cache_clear()


def test_a_layer_that_the_kernel_cannot_take_stays_in_float_and_is_named(tmp_path, caplog):
    folder = tiny.write("llava", tmp_path / "odd", WORDS, tiny.Size(40, 1))
    family = FAMILIES["llava"]
    model, report = family.model_class.from_pretrained(
        folder,
        dtype=torch.float32,
        quantization_config=Int4Config(family.float_parts),
        output_loading_info=True,
    )
    assert not report["missing_keys"]
    assert "7 layers stay in float, inputs no multiple of 32: model.language_model.layers.0" in caplog.text
    assert not any(isinstance(m, Int4Linear) for m in model.modules())
