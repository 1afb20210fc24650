"""What a device holds is named in its state and lies once on disk."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from cdc_flower.downlink import update
from cdc_flower.fleet.engines.local_grid import node_config
from cdc_flower.session import session
from cdc_flower.wire.messages import message_bytes, state_bytes, state_of
from clients import store
from clients.store import Adapter, Store

INITIAL = Adapter.of(np.zeros(3000, np.float32), 0)


def context(out="", device=0, own=True) -> Context:
    """Of a device on one of our grids, or on an engine of Flower's."""
    node = node_config(device, 5) if own else {"partition-id": device}
    return Context(1, 77 + device, node, RecordDict(), {"run.out-dir": str(out)})


def hold(context, adapter):
    Store.of(context).hold(adapter)


def held(context, initial):
    return Store.of(context).held(initial)


def adapter(version=7, seed=0) -> Adapter:
    return Adapter.of(np.random.default_rng(seed).standard_normal(3000).astype(np.float32), version)


@pytest.fixture(params=["state", "folder"])
def out(request, tmp_path):
    return tmp_path if request.param == "folder" else ""


def test_a_device_holds_version_0_until_it_was_given_another(out):
    here = context(out)
    assert held(here, INITIAL) is INITIAL
    hold(here, adapter())
    found = held(here, INITIAL)
    assert found == adapter()
    assert found.flat.tobytes() == adapter().flat.tobytes()
    assert update.digest(found.flat) == found.digest


def test_the_state_is_small_and_the_adapter_lies_on_disk_once(tmp_path):
    contexts = [context(tmp_path, device) for device in range(5)]
    for here in contexts:
        hold(here, adapter())
    assert message_bytes(contexts[0].state) < 100
    (file,) = (tmp_path / "adapters").iterdir()
    assert file.name == f"{adapter().digest.hex()}.npy"


def test_another_process_finds_it(tmp_path):
    here = context(tmp_path)
    hold(here, adapter())
    session().close()  # as in a process that has read nothing
    assert held(here, INITIAL).flat.tobytes() == adapter().flat.tobytes()


@pytest.mark.parametrize("damage", ["gone", "cut", "changed", "other type", "pickled"])
def test_a_file_that_cannot_be_trusted_puts_the_device_back_to_version_0(tmp_path, damage):
    here = context(tmp_path)
    hold(here, adapter())
    (file,) = (tmp_path / "adapters").iterdir()
    data = file.read_bytes()
    match damage:
        case "gone":
            file.unlink()
        case "cut":
            file.write_bytes(data[:-9])
        case "changed":
            file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case "other type":
            np.save(file, adapter().flat.astype(np.float64))
        case "pickled":
            np.save(file, np.array([{"a": 1}], object), allow_pickle=True)
    session().close()
    assert held(here, INITIAL) is INITIAL


def test_what_is_shared_cannot_be_written_to(out):
    here = context(out)
    hold(here, adapter())
    with pytest.raises(ValueError, match="read-only"):
        held(here, INITIAL).flat[0] = 1


def test_memory_is_bounded_where_there_are_files(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "KEPT_BYTES", 30_000)
    here = context(tmp_path)
    for version in range(1, 9):
        hold(here, adapter(version, seed=version))
    assert sum(a.nbytes for a in session().shelf(store.SHELF).values()) <= 30_000
    assert held(here, INITIAL) == adapter(8, seed=8)


def test_a_damaged_file_is_written_again(tmp_path):
    device = context(tmp_path)
    hold(device, adapter(1, seed=1))
    (path,) = tmp_path.rglob("*.npy")
    path.write_bytes(b"damaged")
    session().close()
    assert held(device, INITIAL) == INITIAL
    hold(device, adapter(1, seed=1))
    session().close()
    assert held(device, INITIAL) == adapter(1, seed=1)


def test_without_a_folder_the_adapter_travels_in_the_state():
    here, there = context(), context(device=1)
    for version in (1, 2):
        hold(here, adapter(version, seed=version))
    there.state = state_of(state_bytes(here.state))
    assert held(there, INITIAL).flat.tobytes() == adapter(2, seed=2).flat.tobytes()
    assert message_bytes(here.state) < 1.1 * adapter().flat.nbytes  # one adapter, not one a version


def test_on_flowers_engines_a_device_keeps_the_adapter_it_holds_and_the_one_before(tmp_path):
    devices = [context(tmp_path, device, own=False) for device in range(2)]
    hold(devices[1], adapter(1, seed=1))
    for version in range(1, 6):
        before = state_bytes(devices[0].state)
        hold(devices[0], adapter(version, seed=version))
    session().close()
    assert len(list(tmp_path.rglob("*.npy"))) == 3
    assert held(devices[0], INITIAL) == adapter(5, seed=5)
    assert held(devices[1], INITIAL) == adapter(1, seed=1)
    devices[0].state = state_of(before)  # its process died before it answered
    assert held(devices[0], INITIAL) == adapter(4, seed=4)
