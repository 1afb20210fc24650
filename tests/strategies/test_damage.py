"""What a disk, a person or a second run does to a run folder: one line, or the same results."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from cdc_flower import checkpoint, results
from cdc_flower.config import ConfigError, parse
from cdc_flower.disk import DiskError
from cdc_flower.fleet.engines import adapter_files
from cdc_flower.session import session
from clients import store
from strategies.method import Method
from strategies.resumed import Earlier, adapters_back
from strategies.run import run_local
from tests.strategies.test_resumed import Stopped, outcome, stop_at

TABLES = (*results.ALWAYS, "pictures.parquet", "run.json")
DAMAGE = {
    "missing": lambda path: path.unlink(missing_ok=True),
    "junk": lambda path: path.write_bytes(b"PAR1 and more junk PAR1"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.fixture
def settings(run_settings, tmp_path):
    def make(**more):
        base = {"rounds": 3, "eval_every": 3, "cohort": 0.7, "cloud_lr": 0.05, "history": 2}
        return run_settings(**{**base, "out_dir": str(tmp_path / "run"), **more})

    return make


def stopped(settings, round: int) -> Path:
    """The folder of a run that stopped after a round; nothing of its adapters is in memory."""
    with pytest.raises(Stopped):
        run_local(parse(settings), stop_at("rounds", round))
    session().shelf(store.SHELF).clear()
    return Path(settings["run.out-dir"])


def alone(settings, tmp_path) -> dict:
    """The outcome of a run that nothing happened to."""
    return outcome(run_local(parse({**settings, "run.out-dir": str(tmp_path / "alone")})))


def test_a_checkpoint_of_another_run_is_refused_by_the_setting_that_differs(settings, tmp_path):
    other = stopped(settings(seed=1, out_dir=str(tmp_path / "other")), 2)
    made = settings()
    folder = stopped(made, 1)
    newer = checkpoint.path_of(folder / "checkpoints", 2)
    shutil.copy(checkpoint.path_of(other / "checkpoints", 2), newer)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(ConfigError) as refused:
        run_local(parse(made), resume=True)
    assert str(refused.value) == (
        f"setting 'run.seed' = 0: the checkpoint {newer} has 1; allowed: the same, or a new run"
    )
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("lacking", ["run", "digest"])
def test_a_checkpoint_that_does_not_say_whose_it_is_is_refused(lacking, settings):
    made = settings()
    folder = stopped(made, 1)
    found = checkpoint.load_newest(folder / "checkpoints")
    assert found is not None
    parts = found[1]
    if lacking == "run":
        del parts["run"]
    else:
        parts["run"]["digest"] = "0" * 64
    checkpoint.save(folder / "checkpoints", 1, parts)
    with pytest.raises(ConfigError, match=r"round-000001.ckpt does not say of which run it is; allowed"):
        run_local(parse(made), resume=True)


def test_tables_come_back_from_the_checkpoint_however_damaged(settings, tmp_path):
    made = settings()
    whole = alone(made, tmp_path)
    folder = stopped(made, 2)
    for what in DAMAGE.values():
        again = Path(shutil.copytree(folder, tmp_path / "again"))
        for name in TABLES:
            (again / name).touch()
            what(again / name)
        assert outcome(run_local(parse({**made, "run.out-dir": str(again)}), resume=True)) == whole
        for name in results.ALWAYS:  # of the run that is completed now
            what(again / name)
        assert outcome(run_local(parse({**made, "run.out-dir": str(again)}), resume=True)) == whole
        shutil.rmtree(again)


def test_adapters_that_were_lost_or_damaged_come_back_from_the_mirror(settings, tmp_path):
    made = settings(rounds=6, eval_every=6, history=1, cohort=0.4)
    whole = alone(made, tmp_path)
    folder = stopped(made, 4)
    held = sorted((folder / "adapters").iterdir())
    assert len(held) > 1  # more than the mirror's window: some device holds an older one
    damage = {**DAMAGE, "flipped": lambda path: path.write_bytes(_flipped(path.read_bytes()))}
    for what in damage.values():
        again = Path(shutil.copytree(folder, tmp_path / "again"))
        for path in (again / "adapters").iterdir():
            what(path)
        session().shelf(store.SHELF).clear()
        assert outcome(run_local(parse({**made, "run.out-dir": str(again)}), resume=True)) == whole
        shutil.rmtree(again)


def _flipped(content: bytes) -> bytes:
    found = bytearray(content)
    found[-5] ^= 1
    return bytes(found)


def test_adapters_that_a_method_cannot_make_again_are_refused(settings, tmp_path):
    folder = stopped(settings(), 2)
    newest = checkpoint.load_newest(folder / "checkpoints")
    assert newest is not None
    fake = SimpleNamespace(name="mine")
    fake.restored = lambda lost: Method.restored(fake, lost)  # type: ignore[arg-type]
    adapters_back(fake, Earlier(*newest), folder)  # type: ignore[arg-type]
    (lost, *_) = (folder / "adapters").iterdir()
    lost.write_bytes(b"")
    states = {int(d): s for d, s in newest[1]["devices"].items()}
    devices = [d for d, s in states.items() if bytes.fromhex(lost.stem) in s]  # type: ignore[operator]
    with pytest.raises(ConfigError) as refused:
        adapters_back(fake, Earlier(*newest), folder)  # type: ignore[arg-type]
    assert str(refused.value) == (
        f"the adapters of devices {', '.join(map(str, sorted(devices)))} are lost or damaged, and method "
        "'mine' keeps no copy of them; allowed: the run folder with its adapters, or a new run"
    )


@pytest.mark.parametrize("which", ["the last of each file", pytest.param("all", marks=pytest.mark.slow)])
def test_each_write_of_a_run_may_fail_once_and_the_resumed_run_ends_the_same(
    which, settings, tmp_path, monkeypatch
):
    made = settings(rounds=2, eval_every=2, devices=2)
    own, folder, left = os.replace, Path(made["run.out-dir"]), [0]
    written: list[str] = []
    said: list[str] = []

    def replace(source, target):
        written.append(Path(target).suffix if Path(target).parent != folder else Path(target).name)
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        own(source, target)

    monkeypatch.setattr(os, "replace", replace)
    whole = outcome(run_local(parse(made)))
    shutil.rmtree(folder)
    last = {name: n for n, name in enumerate(written, start=1)}
    for n in sorted(last.values()) if which != "all" else range(1, len(written) + 1):
        left[0] = n
        session().shelf(store.SHELF).clear()
        with pytest.raises(DiskError) as full:
            run_local(parse(made))
        said.append(str(full.value))
        left[0] = 0
        assert [p.name for p in folder.rglob(".*") if p.is_file()] == []
        assert not (folder / "run.json").exists() or results.read(folder).status == "failed"
        session().shelf(store.SHELF).clear()
        resume = (folder / "config.json").exists()
        assert outcome(run_local(parse(made), resume=resume)) == whole
        shutil.rmtree(folder)
    assert all(": No space left on device; " in line and "\n" not in line for line in said)
    for name in (*TABLES, "config.json", ".npy", ".ckpt"):
        assert any(f"{name}' cannot be written" in line for line in said), name


@pytest.fixture
def small_disk(tmp_path):
    """`small_disk(bytes)`: a file system of so many."""
    place = tmp_path / "disk"
    place.mkdir()

    def make(size: int, options: str = "") -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}{options}", "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        return place

    yield make
    subprocess.run(["umount", str(place)], capture_output=True, check=False)


def test_a_disk_that_is_full_and_then_read_only_ends_the_run_in_one_line_each(settings, small_disk, tmp_path):
    place = small_disk(300 * 1024)
    made = settings(out_dir=str(place / "run"))
    whole = alone(made, tmp_path)
    with pytest.raises(DiskError, match=f"'{place}.*' cannot be written: No space left on device; ") as full:
        run_local(parse(made))
    assert "\n" not in str(full.value)
    assert [p.name for p in place.rglob(".*") if p.is_file()] == []
    subprocess.run(["mount", "-o", "remount,ro,size=64m", str(place)], check=True)
    with pytest.raises(ConfigError, match=f"folder '{place / 'run'}': Read-only file system; allowed"):
        run_local(parse(made), resume=True)
    subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
    session().shelf(store.SHELF).clear()
    resume = (place / "run" / "config.json").exists()
    assert outcome(run_local(parse(made), resume=resume)) == whole


def test_an_adapter_whose_state_holds_it_is_not_looked_for(tmp_path):
    assert adapter_files.lost(tmp_path, {0: b""}) == {}
