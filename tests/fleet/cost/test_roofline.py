"""Costs from a model's shapes: against the model itself, the roofline's laws, and what fits where."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cdc_flower.config import ConfigError
from cdc_flower.fleet.cost import roofline
from cdc_flower.fleet.cost.profiles import Devices, read_profiles
from cdc_flower.fleet.cost.roofline import COMPRESSIONS, decode, needed_bytes, prefill, seconds, shapes
from cdc_flower.fleet.cost.work import flops
from cdc_flower.wire.counts import Counts

PROFILES = read_profiles()
STUDENT = json.loads((Path(roofline.__file__).parents[2] / "weights/scenes/student/config.json").read_text())
SMALL = shapes(STUDENT, 16)
LLAVA_7B = {  # llava-hf/llava-1.5-7b-hf
    "vision_feature_layer": -2,
    "text_config": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32064,
    },
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "image_size": 336,
        "patch_size": 14,
    },
}
amounts = st.floats(0, 1e18)
machines = st.sampled_from(sorted(PROFILES))


def weights_of(module) -> int:
    """Of the linear layers that run: peft keeps an unused `original_module` beside what it trains."""
    return sum(
        layer.in_features * layer.out_features
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and "original_module" not in name.split(".")
    )


def test_shapes_are_those_of_the_model_and_flops_those_of_the_one_formula(shared, config):
    from cdc_flower.models.families import parts
    from cdc_flower.models.student import device_model

    student = json.loads((Path(shared.path) / "config.json").read_text())
    found = shapes(student, config.pair.lora_rank)
    model = device_model(shared, config.pair)
    projector, lm, head = parts(model)
    assert found.compressed + found.adapter == weights_of(lm)
    assert found.projector == weights_of(projector)
    assert found.head + found.adapter_head == weights_of(head)
    assert found.patches == shared.n_tokens
    assert prefill(found, "nf4", 50, 30, 2).flops == flops(found, Counts(1, 50, 30, 2))[0]
    weights = sum(
        p.numel() for name, p in shared.tower.named_parameters() if "bias" not in name and "norm" not in name
    )
    assert found.tower == pytest.approx(weights, rel=0.01)


def test_a_7b_model_has_the_size_that_is_known_of_it():
    found = shapes(LLAVA_7B, 0)
    assert found.compressed + found.head + found.embedding + found.norms == pytest.approx(6.74e9, rel=0.001)
    assert found.tower == pytest.approx(0.303e9, rel=0.01)
    assert found.patches == 576


def test_a_tower_in_float16_takes_half_the_memory_and_traffic_and_runs_at_the_fp16_rate():
    full, half = shapes(LLAVA_7B, 16), shapes({**LLAVA_7B, "tower_bytes": 2}, 16)
    for kind in COMPRESSIONS:
        saved = needed_bytes(full, kind, 600) - needed_bytes(half, kind, 600)
        assert saved == pytest.approx(2 * 0.303e9, rel=0.01)
    one, other = roofline.tower(full), roofline.tower(half)
    assert other.bytes_moved == one.bytes_moved / 2
    nano, old = PROFILES["orin-nano"], PROFILES["phone-old"]
    assert roofline.work_seconds(nano, [other]) == pytest.approx(one.flops / nano.flops_fp16)
    assert roofline.work_seconds(old, [other]) == roofline.work_seconds(old, [one])  # no fp16 arithmetic


def test_a_token_of_a_7b_model_costs_what_reading_its_weights_costs():
    found, pi5 = shapes(LLAVA_7B, 0), PROFILES["pi5"]
    one = decode(found, "nf4", 600, 1)
    by_hand = 0.5625 * found.compressed + 4 * (found.head + found.norms) + 2 * 4 * 32 * 4096 * 601
    assert one.bytes_moved == by_hand
    assert seconds(pi5, one.flops, one.bytes_moved) == by_hand / pi5.memory_bw  # bandwidth-bound
    first = prefill(found, "nf4", 600, 576)
    assert seconds(pi5, first.flops, first.bytes_moved) == first.flops / pi5.flops_fp32  # compute-bound


@pytest.mark.parametrize("key", ["text_config", "vision_config"])
def test_a_config_of_another_architecture_is_refused(key):
    with pytest.raises(ConfigError, match=key):
        shapes({k: v for k, v in LLAVA_7B.items() if k != key}, 0)


@settings(max_examples=50)
@given(machines, amounts, amounts, amounts, amounts, st.sampled_from(["fp32", "fp16", "int8"]))
def test_more_work_never_takes_less_time_and_both_limits_hold(name, flops, moved, more, further, math):
    profile = PROFILES[name]
    time = seconds(profile, flops, moved, math)
    assert time >= flops / getattr(profile, f"flops_{math}")
    assert time >= moved / profile.memory_bw
    assert seconds(profile, flops + more, moved + further, math) >= time


@settings(max_examples=50)
@given(st.integers(1, 500), st.integers(0, 30), st.integers(0, 30))
def test_tokens_one_by_one_cost_what_they_cost_together(length, steps, further):
    both = decode(SMALL, "int8", length, steps + further)
    parts = [decode(SMALL, "int8", length, steps), decode(SMALL, "int8", length + steps, further)]
    assert both.flops == parts[0].flops + parts[1].flops
    assert both.bytes_moved == pytest.approx(parts[0].bytes_moved + parts[1].bytes_moved)


def test_arrays_give_what_single_profiles_give():
    devices = Devices.of(list(PROFILES.values()))
    work = roofline.answering(SMALL, "nf4", 80, 64, 5)
    assert len(work) == 3
    expected = [roofline.work_seconds(p, work) for p in PROFILES.values()]
    np.testing.assert_array_equal(roofline.work_seconds(devices, work), expected)
    joules = roofline.joules(devices, 2.0, 3.0, 5.0)
    np.testing.assert_allclose(
        joules, [2 * p.compute_power + 3 * p.radio_power + 5 * p.idle_power for p in PROFILES.values()]
    )


def test_the_less_compressed_model_is_taken_where_it_fits():
    found = shapes(LLAVA_7B, 16)
    needed = [needed_bytes(found, name, 700) for name in COMPRESSIONS]
    assert needed == sorted(needed, reverse=True)
    chosen = {
        ram: roofline.compression_for(replace(PROFILES["pi5"], ram=ram), found, 700)
        for ram in (needed[0], needed[0] - 1, needed[1], needed[1] - 1, needed[2])
    }
    assert list(chosen.values()) == ["none", "int8", "int8", "nf4", "nf4"]


def test_a_device_that_holds_it_in_no_compression_is_refused_with_the_figures():
    found = shapes(LLAVA_7B, 16)
    with pytest.raises(ConfigError) as error:
        roofline.compression_for(PROFILES["pizero2"], found, 700)
    for part in (
        "'pizero2'",
        "'ram' = 350 MB",
        *(f"{name} {needed_bytes(found, name, 700) / 1e6:,.0f} MB" for name in COMPRESSIONS),
    ):
        assert part in str(error.value)


def test_a_clip_costs_the_tower_and_the_prompt_its_frames():
    one, clip = roofline.shapes(STUDENT, 4), roofline.shapes({**STUDENT, "frames": 8}, 4)
    assert (clip.patches, clip.tower_flops) == (8 * one.patches, 8 * one.tower_flops)
    assert dataclasses.replace(clip, patches=one.patches, tower_flops=one.tower_flops) == one
