import dataclasses

import pytest
import torch

from cdc_flower.config import ConfigError, flat, parse
from cdc_flower.plan import memory
from experiments.run.plan import Engine, Machine, Plan, check, holds, make, on_gpu, remedy
from tests import tiny

GIB = 2**30
LOCAL = Engine("local", 1)


def arms(config, *methods, **changed):
    return {m: parse({**flat(config), "run.method": m, **changed}) for m in methods}


def test_methods_say_what_they_hold(config):
    found = {m: holds(parse({**flat(config), "run.method": m})) for m in ("static", "cdc", "fedavg_full")}
    assert (found["static"].distils, found["static"].trains) == (False, False)
    assert (found["cdc"].distils, found["cdc"].trains) == (True, False)
    assert (found["fedavg_full"].trains, found["fedavg_full"].full) == (True, True)
    assert found["fedavg_full"].batch == 8
    shares = [holds(config).shares for config in arms(config, "local", "fedavg_lora").values()]
    assert shares == [False, True]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_packaged_pair_is_never_refused_on_four_gib(workers, monkeypatch):
    """With 4 GiB free (one local run: 1.5): neither the formula nor the traced passes say otherwise."""
    methods = ("static", "cdc", "fedavg_full", "fedavg_lora", "fedprox_lora", "fedavg_pseudo")
    check(arms(parse({}), *methods), Engine("compare", workers), 6, Machine(4 * GIB))
    check(arms(parse({}), "cdc"), LOCAL, 1, Machine(1.5 * GIB))


def test_what_does_not_fit_is_refused_with_what_makes_it_fit(config):
    wide = arms(config, "cdc", **{"cloud.batch": 8192})
    with pytest.raises(ConfigError, match=r"this needs about .* GB of RAM, 2.15 GB are free .*") as refused:
        check(wide, LOCAL, 1, Machine(2 * GIB))
    said = str(refused.value)
    assert "\n" not in said
    assert "--no-plan" in said
    (setting,) = [word for word in said.replace(",", " ").split() if word.startswith("cloud.batch=")]
    smaller = arms(config, "cdc", **{"cloud.batch": int(setting.partition("=")[2])})
    check(smaller, LOCAL, 1, Machine(2 * GIB))


def test_fewer_workers_are_the_first_thing_that_is_named(config):
    many = arms(config, "static", "cdc")
    with pytest.raises(ConfigError, match=r"allowed: --workers [24],"):
        check(many, Engine("compare", 8), 16, Machine(2 * GIB))
    check(many, Engine("compare", 2), 16, Machine(2 * GIB))


def test_settings_are_named_together_where_one_alone_is_not_enough(config):
    wide = arms(config, "cdc", **{"cloud.batch": 4096, "cloud.source-replay": 10**6})
    said = remedy(wide, LOCAL, 1, Machine(1 * GIB))
    assert "cloud.batch=" in said
    assert "cloud.source-replay=" in said


def test_nothing_is_named_where_nothing_helps(config):
    assert remedy(arms(config, "cdc"), LOCAL, 1, Machine(0.1 * GIB)) == ""
    with pytest.raises(ConfigError, match="smaller models, a larger machine, or --no-plan"):
        check(arms(config, "cdc"), LOCAL, 1, Machine(0.1 * GIB))


def test_a_pair_that_is_not_there_yet_is_not_judged(config, tmp_path):
    check(arms(config, "cdc", **{"pair.folder": str(tmp_path)}), LOCAL, 1, Machine(1.0))


def test_workers_beyond_the_jobs_are_none_and_one_that_runs_several_keeps_their_models(config):
    both = arms(config, "cdc", "fedavg_full")
    many, two, one, none = (make(both, Engine("compare", n), 2) for n in (9, 2, 1, 0))
    assert many.ram == two.ram > one.ram > none.ram
    (worker,) = [p.memory.ram for p in one.processes if p.name == "worker"]
    apart = [p.memory.ram.weights for p in two.processes if p.name.startswith("worker,")]
    assert worker.weights == sum(apart)


def test_on_a_fleet_devices_have_processes_of_their_own(config):
    found = make(arms(config, "cdc"), Engine("fleet", 3), 1)
    assert [(p.name, p.count) for p in found.processes] == [("cloud", 1), ("device worker", 3), ("Ray", 1)]


def test_a_plan_is_of_the_device_that_the_settings_name(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("a driver was asked"))
    on_cpu = arms(config, "cdc", **{"run.device": "cpu"})
    found = make(on_cpu, LOCAL, 1)
    assert found.ram == make(arms(config, "cdc"), LOCAL, 1, gpu=False).ram
    assert found.vram == 0
    assert not on_gpu(on_cpu)


def test_memory_of_a_gpu_is_judged_by_itself(config):
    found = make(arms(config, "cdc"), LOCAL, 1, gpu=True)
    assert found.vram > 0
    assert found.lacks(Machine(100 * GIB, 100 * GIB)) == ""
    assert "GPU memory" in found.lacks(Machine(100 * GIB, 10**6))


def test_only_what_surely_does_not_fit_is_refused(config):
    found = make(arms(config, "cdc"), LOCAL, 1)
    assert found.lacks(Machine(found.ram)) == ""
    assert found.lacks(Machine(found.ram * 0.9)) == ""
    assert found.lacks(Machine(found.ram * 0.8)) != ""


def test_a_plan_of_nothing_but_libraries_is_their_size():
    one = memory.Memory(memory.Need(libraries=10), memory.Need())
    from experiments.run.plan import Process

    assert Plan({}, {}, {}, [Process("p", 3, one)], 0.15).ram == memory.MAPPED + 30
    assert dataclasses.astuple(one.vram) == (0,) * 7


def test_a_teacher_with_a_tower_of_its_own_takes_it_and_reads_its_own_tokens(tmp_path):
    for family in ("gemma3", "smolvlm"):
        tiny.write(family, tmp_path / family, "what is this")

    def planned(teacher):
        models = {"pair.teacher": str(tmp_path / teacher), "pair.student": str(tmp_path / "smolvlm")}
        return make({"cdc": parse({**models, "uplink.unit": "jpeg"})}, LOCAL, 1)

    alike, other = (planned(teacher).runs["cdc"] for teacher in ("smolvlm", "gemma3"))
    assert alike.seen is None
    assert other.seen.picture == 4 != other.lengths.picture
    (one,) = planned("gemma3").processes
    bare = dataclasses.replace(other, seen=None)
    tower = one.memory.ram.weights - memory.process(bare, device=True, cloud=True).ram.weights
    assert tower == 4 * other.teacher.parts.tower > 0
