"""Workers change nothing in the numbers, are replaced where they die, and say why where none starts."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.run import pool
from tests.installed import announce

ROOT = Path(__file__).parents[3]


def test_workers_give_the_same_numbers_as_this_process_and_keep_their_noise_in_logs(run, tmp_path, capfd):
    here, apart = run(out=tmp_path / "here"), run(out=tmp_path / "apart", workers=2)
    assert here.methods.to_dict("records") == apart.methods.to_dict("records")
    assert "noise of cdc" in (tmp_path / "apart/runs/cdc-0.log").read_text()
    assert capfd.readouterr().out.count("noise") == 3  # of the runs in this process


def test_a_worker_that_dies_is_replaced(run, monkeypatch):
    monkeypatch.setenv("FAKE_DEATH", "1")
    made = run(methods=("fedavg_full", "static"), workers=1)
    assert made.index["failed"] == {"fedavg_full · seed 0": "its process died (exit code 9)"}
    assert made.methods["method"].tolist() == ["static"]


def test_a_worker_that_is_killed_between_two_jobs_is_replaced_and_no_job_is_lost(engine, tmp_path):
    jobs = [
        pool.Job(
            "static",
            seed,
            {"run.rounds": 1, "run.seed": seed, "run.out-dir": str(tmp_path / f"{seed}")},
            engine,
        )
        for seed in range(2)
    ]
    ended = []

    def listen(event):
        if event.kind == "done":  # what a job left is read here, while its worker waits for the next one
            ended.append((event.job.seed, multiprocessing.active_children()))
            for process in ended[-1][1]:
                process.kill()
                process.join()

    assert pool.run(jobs, 1, listen) == {}
    assert [seed for seed, _ in ended] == [0, 1]
    assert all(len(workers) == 1 for _, workers in ended)


def test_a_package_that_is_half_installed_meanwhile_does_not_end_new_workers(run, tmp_path, monkeypatch):
    """Its entry points are there before its modules, as pip may leave them for a second."""
    entry_points = "[cdc_flower.methods]\nhalf = half.strategy:Half\n[cdc_flower.extensions]\nhalf = half\n"
    announce(tmp_path / "site", "half", entry_points)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])  # which workers take over
    made = run(methods=("static", "cdc"), workers=1)
    assert made.status == "completed", made.index["failed"]
    logs = "".join(log.read_text() for log in (tmp_path / "out" / "runs").glob("*.log"))
    assert logs.count("left out: 'half' of cdc_flower.extensions (half) cannot be imported") == 1


@pytest.mark.slow
def test_a_script_without_the_main_guard_is_told_so(engine, tmp_path):
    program = (
        "from experiments.run import compare\n"
        f"compare.run({{'run.rounds': 4}}, ('static', 'cdc'), out={str(tmp_path / 'out')!r}, workers=1, "
        f"plan=False, progress=False, engine={engine!r})\n"
    )
    (tmp_path / "program.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")],
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1  # of the script, none of its workers
    assert "WorkerError: a worker ended while it started" in done.stderr
    assert 'if __name__ == "__main__":' in done.stderr


def test_no_worker_that_starts_is_an_error_and_not_an_empty_table(run, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_serve", os._exit)
    with pytest.raises(pool.WorkerError):
        run(workers=2)
    assert json.loads((tmp_path / "out/summary.json").read_text())["status"] == "failed"


def test_ctrl_c_never_reaches_a_process_that_was_started_for_work():
    program = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('goes on')"
    with pool._no_ctrl_c():
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "goes on\n"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
