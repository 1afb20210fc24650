import dataclasses

import pytest

from cdc_flower.plan import memory
from cdc_flower.plan.live import Work
from cdc_flower.plan.memory import Holds, above, process, teacher_alone

CDC, LORA = Holds(distils=True), Holds(trains=True, batch=8, lessons=100)
FULL = dataclasses.replace(LORA, full=True)


def test_a_device_has_no_teacher_and_no_data_and_less_than_the_cloud(planned):
    run = planned(CDC)
    device = process(run, device=True, cloud=False).ram
    cloud = process(run, device=False, cloud=True).ram
    assert device.data == device.ledger == 0
    assert cloud.weights > 4 * run.teacher.parts.language > device.weights
    both = process(run, device=True, cloud=True).ram
    assert cloud.total <= both.total < device.total + cloud.total


def test_compression_makes_a_device_smaller_and_the_cloud_not(planned):
    sizes = [planned(CDC, pair_compression=name) for name in ("none", "int8", "nf4", "int4")]
    device = [process(run, device=True, cloud=False).ram.weights for run in sizes]
    assert device[0] > device[1] > device[2] == device[3]
    assert len({process(run, device=False, cloud=True).ram.weights for run in sizes}) == 1


@pytest.mark.parametrize(
    ("setting", "purpose"),
    [
        ("cloud_batch", "activations"),
        ("cloud_source_replay", "tokens"),
        ("run_rounds", "ledger"),
        ("data_scenes_train", "data"),
        ("pair_lora_rank", "optimiser"),
    ],
)
def test_a_setting_costs_what_it_is_for(planned, setting, purpose):
    values = {"pair_lora_rank": (2, 64)}.get(setting, (100, 1000))
    less, more = (process(planned(CDC, **{setting: v}), device=True, cloud=True).ram for v in values)
    assert getattr(more, purpose) > 1.2 * getattr(less, purpose)


def test_training_all_weights_takes_optimiser_states_of_all_and_an_answer_of_each_device(planned):
    adapter, every = (process(planned(h), device=True, cloud=True).ram for h in (LORA, FULL))
    size = planned(FULL).student.parts
    assert every.optimiser - adapter.optimiser > 16 * (size.language - size.adapter)
    crowd = process(planned(FULL, asked=50), device=False, cloud=True).ram
    assert crowd.optimiser > 40 * 6 * size.language


def test_on_a_gpu_models_and_passes_are_in_its_memory_and_what_is_frozen_takes_half(planned):
    run = planned(CDC)
    here = process(run, device=True, cloud=True)
    there = process(dataclasses.replace(run, gpu=True), device=True, cloud=True)
    assert here.vram.total == 0
    assert there.ram.weights == there.ram.activations == 0
    half = here.ram.weights - there.vram.weights
    assert half == pytest.approx(2 * (run.teacher.parts.language + run.student.parts.language))
    assert there.ram.data == here.ram.data


def test_the_formula_is_above_what_is_traced(planned):
    run = planned(CDC)
    for of in (run.student, run.teacher):
        for work in (Work(8, 40), Work(8, 40, 5, train=True), Work(8, 40, attention=True), Work(1, 400)):
            assert run.widest(of, work) < above(of, work) < 20 * run.widest(of, work)
    rough = dataclasses.replace(run, rough=True)
    assert process(rough, device=True, cloud=True).ram.total > process(run, device=True, cloud=True).ram.total


def test_who_starts_a_comparison_has_a_teacher_and_no_student(planned):
    found = teacher_alone(planned(CDC)).ram
    assert found.weights < process(planned(CDC), device=True, cloud=True).ram.weights
    assert found.libraries == memory.LIBRARIES
    assert found.ledger == found.optimiser == 0


def test_a_cloud_that_rehearses_trains_and_keeps_its_samples(planned):
    plain, more = (
        process(planned(dataclasses.replace(LORA, rehearses=some)), device=False, cloud=True).ram
        for some in (False, True)
    )
    assert more.optimiser > plain.optimiser
    assert more.tokens > plain.tokens
    assert more.activations >= plain.activations
