"""Compressions: a layer of each multiplies as its values say, and a processor that does not is named."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit
from torch import nn
from torch.nn import functional as F

from cdc_flower.config import ConfigError, parse
from cdc_flower.fleet.cost import roofline
from cdc_flower.models import compressions
from cdc_flower.models.compressions import COMPRESSIONS, fault, preflight, quantization
from experiments.run import plan


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def tried_again():
    """What is known of this processor is forgotten before and after."""
    compressions._fault.cache_clear()
    yield
    compressions._fault.cache_clear()


def test_every_compression_has_a_cost_and_can_be_set():
    assert {*COMPRESSIONS, "none"} == set(roofline.COMPRESSIONS)
    for name in roofline.COMPRESSIONS:
        assert parse({"pair.compression": name}).pair.compression == name
        assert (quantization(name, ["lm_head"]) is None) == (name == "none")


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_this_processor_multiplies_it(name):
    assert fault(name) == ""
    preflight(name)


def test_the_least_bytes_of_four_bits_are_those_that_costs_are_reckoned_with():
    plain = nn.Linear(448, 256, bias=False)
    for name in ("nf4", "int4"):
        layer = COMPRESSIONS[name].of(plain)
        held = sum(p.numel() * p.element_size() for p in layer.parameters())
        held += 4 * layer.weight.quant_state.absmax.numel() if isinstance(layer, Linear4bit) else 0
        assert held == roofline.COMPRESSIONS[name].weight * plain.weight.numel()


@pytest.mark.parametrize("shape", [(448, 2048, True), (2048, 448, False), (64, 8, True)])
@pytest.mark.parametrize("rows", [(16, 1), (4, 40)])
def test_nf4_in_blocks_has_the_bits_of_bitsandbytes_and_of_a_float_layer(shape, rows):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    plain = nn.Linear(*shape)
    layer = COMPRESSIONS["nf4"].of(plain)
    own = torch.randn(*rows, shape[0])
    theirs = Linear4bit.forward(layer, own)
    values = COMPRESSIONS["nf4"].values(layer)
    in_float, in_blocks = F.linear(own, values, layer.bias), layer(own)
    torch.set_num_threads(threads)
    assert torch.equal(in_blocks, theirs)
    assert torch.equal(in_blocks, in_float)


@pytest.mark.parametrize("shape", [(96, 40), (32, 7), (7, 5), (64, 40)])
def test_nf4_is_as_near_as_it_can_be_whatever_the_shape(shape):
    torch.manual_seed(0)
    plain = nn.Linear(*shape)
    layer = COMPRESSIONS["nf4"].of(plain)
    values, rows = COMPRESSIONS["nf4"].values(layer), torch.randn(3, 2, shape[0])
    assert float((values - plain.weight).norm() / plain.weight.norm()) < 0.15
    assert torch.equal(layer(rows), F.linear(rows, values, plain.bias))


def raises(layer, x):
    raise RuntimeError("no kernel image is available for execution\non the device")


def test_a_kernel_that_fails_is_one_line_with_what_to_choose_instead(tried_again, monkeypatch):
    monkeypatch.setattr(compressions.Int4Linear, "_step", raises)
    with pytest.raises(ConfigError) as refused:
        plan.check({"a": parse({"pair.compression": "int4"})}, plan.Engine("local", 1), 1)
    said = str(refused.value)
    assert said.startswith("setting 'pair.compression' = 'int4': this processor (")
    assert "cannot multiply it (RuntimeError: no kernel image is available for execution)" in said
    assert said.endswith("; allowed: nf4, int8, none")
    assert "\n" not in said


def test_a_kernel_that_answers_wrongly_is_found(tried_again, monkeypatch):
    right = Linear4bit.forward
    monkeypatch.setattr(Linear4bit, "forward", lambda layer, x: 1.1 * right(layer, x))
    with pytest.raises(ConfigError, match=r"'nf4'.*\(its product is off by 10%\); allowed: int4, int8, none"):
        preflight("auto")


def test_values_that_are_not_the_layers_are_found(tried_again, monkeypatch):
    right = compressions.Params4bit
    monkeypatch.setattr(compressions, "Params4bit", lambda w, **more: right(w.flip(0), **more))
    assert fault("nf4").startswith("its weights are off by 1")
