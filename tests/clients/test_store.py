"""What a device holds is named in its state and lies once on disk."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from cdc_flower.downlink import update
from cdc_flower.fleet.grid import message_bytes
from clients import store
from clients.store import Adapter, held, hold

INITIAL = Adapter.of(np.zeros(3000, np.float32), 0)


def context(out="") -> Context:
    return Context(1, 1, {}, RecordDict(), {"out-dir": str(out)})


def adapter(version=7, seed=0) -> Adapter:
    return Adapter.of(np.random.default_rng(seed).standard_normal(3000).astype(np.float32), version)


@pytest.fixture(params=["memory", "folder"])
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
    contexts = [context(tmp_path) for _ in range(5)]
    for here in contexts:
        hold(here, adapter())
    assert message_bytes(contexts[0].state) < 100
    (file,) = (tmp_path / "adapters").iterdir()
    assert file.name == f"{adapter().digest.hex()}.npy"


def test_another_process_finds_it(tmp_path):
    here = context(tmp_path)
    hold(here, adapter())
    store._adapters.cache_clear()  # as in a process that has read nothing
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
    store._adapters.cache_clear()
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
    assert sum(a.nbytes for a in store._adapters(tmp_path / "adapters")._kept.values()) <= 30_000
    assert held(here, INITIAL) == adapter(8, seed=8)
