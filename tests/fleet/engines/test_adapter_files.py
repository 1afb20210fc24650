"""Adapters go when no state names them."""

from __future__ import annotations

from cdc_flower.fleet.engines.adapter_files import path_of, sweep


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
