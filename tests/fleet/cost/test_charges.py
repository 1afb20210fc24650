"""What a round costs the cloud: by counts and shapes alone."""

from __future__ import annotations

import pytest

from cdc_flower.config import parse
from cdc_flower.fleet.cost import roofline
from cdc_flower.fleet.cost.charges import CloudCharges
from cdc_flower.fleet.cost.cost_models import table
from cdc_flower.fleet.cost.profiles import read_profiles

GPU = read_profiles()["gpu-server"]
SHAPES = roofline.shapes(table()["llava-qwen-0.5b"], 16)
LENGTH = SHAPES.patches + 50


def cloud(teacher=3.0, **more) -> CloudCharges:
    return CloudCharges(GPU, SHAPES, teacher, LENGTH, parse(more), 8)


def test_steps_are_two_passes_over_a_batch_of_complete_lessons():
    one, none = (cloud(cloud_steps=n, cloud_batch=10).seconds(1) for n in (1, 0))
    lesson = 2 * SHAPES.compressed * (LENGTH + 8)  # the projector, the head and attention aside
    assert one - none == pytest.approx(2 * 10 * lesson / GPU.flops_fp16, rel=0.25)
    assert one - none > 2 * 10 * lesson / GPU.flops_fp16
    assert cloud(cloud_steps=50, cloud_batch=10).seconds(1) - none == pytest.approx(50 * (one - none))


def test_the_teacher_answers_each_sample_and_reads_its_weights_for_each_batch():
    seconds = cloud(cloud_steps=0).seconds
    assert seconds(0) == 0
    assert seconds(1) < seconds(64)
    assert seconds(640) == pytest.approx(10 * seconds(64))
    least = 2 * 3 * SHAPES.compressed * LENGTH * 64 / GPU.flops_fp16
    assert least < seconds(64) < 1.6 * least
    assert cloud(teacher=6.0, cloud_steps=0).seconds(64) == pytest.approx(2 * seconds(64))
    decoding = 7 * 3 * 2 * SHAPES.compressed / GPU.memory_bw  # seven passes over float16 weights, alone
    assert seconds(1) > decoding


def test_features_cost_the_teacher_and_pictures_the_tower():
    plain = cloud(cloud_steps=2).seconds(64)
    assert cloud(cloud_steps=2, feature_weight=0.1).seconds(64) > 1.5 * plain
    tower = roofline.tower(SHAPES).flops * 64 / GPU.flops_fp16
    assert cloud(cloud_steps=2, uplink_unit="jpeg").seconds(64) == pytest.approx(plain + tower)
