"""Adapters go when no state names them, and those that are lost or damaged are found."""

from __future__ import annotations

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from cdc_flower.downlink import update
from cdc_flower.fleet.engines import adapter_files
from cdc_flower.fleet.engines.adapter_files import HELD, path_of, sweep
from cdc_flower.wire import keys
from cdc_flower.wire.messages import state_bytes


def test_what_a_state_names_stays_and_the_rest_goes(tmp_path):
    digests = [bytes([i] * 8) for i in range(4)]
    for digest in digests:
        path_of(tmp_path, digest).write_bytes(b"-")
    (tmp_path / ".cut-short.part").write_bytes(b"-")
    (tmp_path / "mine.npy").write_bytes(b"-")
    (tmp_path / "device-1").mkdir()
    assert sweep(tmp_path, [b"", b"before" + digests[1] + b"after", digests[3]]) == 2
    left = {path_of(tmp_path, digests[i]).name for i in (1, 3)}
    assert {path.name for path in tmp_path.iterdir()} == {*left, "mine.npy", "device-1"}


def test_a_folder_that_is_not_there_is_empty(tmp_path):
    assert sweep(tmp_path / "absent", []) == 0


def test_lost_and_damaged_adapters_are_found_by_device(tmp_path):
    flats = [np.full(5, value, np.float32) for value in range(4)]
    digests = [update.digest(flat) for flat in flats]
    for digest, flat in zip(digests, flats, strict=True):
        adapter_files.write(tmp_path, digest, flat)
    records = {d: {keys.VERSION: 1, keys.DIGEST: digest} for d, digest in enumerate(digests)}
    records[7] = {keys.VERSION: 1, keys.DIGEST: digests[0][::-1], adapter_files.FLAT: b"itself"}
    states = {d: state_bytes(RecordDict({HELD: ConfigRecord(held)})) for d, held in records.items()}
    states[8] = states[1]
    assert adapter_files.lost(tmp_path, states) == {}
    adapter_files.path_of(tmp_path, digests[0]).unlink()
    damaged = adapter_files.path_of(tmp_path, digests[1])
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\xff")
    adapter_files.path_of(tmp_path, digests[2]).write_bytes(b"\x93NUMPY junk")
    assert adapter_files.lost(tmp_path, states) == {d: digests[d % 7] for d in (0, 1, 2, 8)}
    assert not damaged.exists()
    again = adapter_files.read(tmp_path, digests[3])
    assert again is not None
    assert np.array_equal(again, flats[3])
