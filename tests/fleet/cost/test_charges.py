"""What a round costs the cloud: by counts and shapes alone."""

from __future__ import annotations

import pytest

from cdc_flower.fleet.cost import roofline
from cdc_flower.fleet.cost.charges import CloudCharges, CloudWork
from cdc_flower.fleet.cost.cost_models import table
from cdc_flower.fleet.cost.profiles import read_profiles

GPU = read_profiles()["gpu-server"]
SHAPES = roofline.shapes(table()["llava-qwen-0.5b"], 16)
LENGTH = SHAPES.patches + 50


def seconds(teacher=3.0, **work) -> float:
    return CloudCharges(GPU, SHAPES, teacher, LENGTH, 8).seconds(CloudWork(**work))


def test_steps_are_two_passes_over_a_batch_of_complete_samples():
    none, one, fifty = (seconds(taught=1, steps=n, batch=10) for n in (0, 1, 50))
    sample = 2 * SHAPES.compressed * (LENGTH + 8)  # the projector, the head and attention aside
    assert one - none == pytest.approx(2 * 10 * sample / GPU.flops_fp16, rel=0.25)
    assert one - none > 2 * 10 * sample / GPU.flops_fp16
    assert fifty - none == pytest.approx(50 * (one - none))


def test_operations_are_those_that_the_seconds_are_of_and_need_no_machine():
    cloud, work = CloudCharges(None, SHAPES, 3.0, LENGTH, 8), CloudWork(taught=64, steps=50, batch=96)
    least = seconds(taught=64, steps=50, batch=96) * GPU.flops_fp16
    assert 0.5 * least < cloud.flops(work) <= least
    assert cloud.flops(CloudWork()) == 0
    assert cloud.flops(CloudWork(steps=50, batch=96)) == 50 * cloud.flops(CloudWork(steps=1, batch=96))


def test_the_teacher_answers_each_sample_and_reads_its_weights_for_each_batch():
    assert seconds() == 0
    assert seconds(taught=1) < seconds(taught=64)
    assert seconds(taught=640) == pytest.approx(10 * seconds(taught=64))
    least = 2 * 3 * SHAPES.compressed * LENGTH * 64 / GPU.flops_fp16
    assert least < seconds(taught=64) < 1.6 * least
    assert seconds(teacher=6.0, taught=64) == pytest.approx(2 * seconds(taught=64))
    decoding = 7 * 3 * 2 * SHAPES.compressed / GPU.memory_bw  # seven passes over float16 weights, alone
    assert seconds(taught=1) > decoding


def test_hidden_states_cost_the_teacher_in_each_step_and_pictures_the_tower():
    work = {"taught": 64, "steps": 2, "batch": 64}
    plain = seconds(**work)
    assert seconds(**work, hidden=True) > 1.5 * plain
    tower = roofline.tower(SHAPES).flops * 64 / GPU.flops_fp16
    assert seconds(**work, pictures=64) == pytest.approx(plain + tower)
