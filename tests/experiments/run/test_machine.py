import pytest

from experiments.run import machine
from experiments.run.machine import Machine, cores


@pytest.fixture(autouse=True)
def much_memory():
    """Here it is this host that is asked."""


def test_this_machine_has_memory():
    here = Machine.here()
    assert 10**8 < here.ram < 10**14
    assert here.vram >= 0


def test_a_control_group_has_room_up_to_its_limit_and_its_cache_can_go(tmp_path):
    limit = tmp_path / "memory.max"
    limit.write_text("1000")
    (tmp_path / "memory.current").write_text("700")
    (tmp_path / "memory.stat").write_text("anon 400\ninactive_file 300\n")
    assert machine._room(limit) == 600
    limit.write_text("max")
    assert machine._room(limit) == 0


@pytest.mark.parametrize("room", [0, 10**6])
def test_the_limit_of_a_control_group_holds_where_there_is_one(monkeypatch, room):
    monkeypatch.setattr(machine, "_room", lambda limit: room)
    monkeypatch.setattr(machine.psutil, "swap_memory", lambda: type("Swap", (), {"free": 0}))
    assert (Machine.here().ram == 10**6) == bool(room)
    assert cores() >= 1
