"""A stand-in for the engine: run folders in milliseconds, whose numbers a test can compute by hand."""

import sys

import pytest

from experiments.cli import app as cli
from experiments.run.machine import Machine

ENGINE = """
import io, os, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import pandas as pd
from PIL import Image
from cdc_flower.config import ConfigError, flat
from cdc_flower.run_folder import RunFolder

DRIFT = {"static": 0.40, "cdc": 0.85, "fedprox_lora": 0.90}
UP = {"static": 0, "cdc": 100, "fedprox_lora": 2000}

def prepare(config, progress=None, say=None):
    progress("vision tokens", 2, 2)
    digest = os.environ.get("FAKE_PAIR", "p")
    return SimpleNamespace(digest=digest, world=SimpleNamespace(pack=SimpleNamespace(digest="d")))

def digests(config, pair, world):
    return {"pair_digest": pair.digest, "data_digest": world.pack.digest}

def teacher_accuracy(config, progress=None, part="test"):
    return {"source": 0.96, "object": 0.98, "question": 0.92}

def png():
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(data, "png")
    return data.getvalue()

def run_local(config, progress=None, resume=False):
    if resume:
        print("goes on with", config.run.method)
    method, seed, n = config.run.method, config.run.seed, config.run.rounds
    if method == "fedavg_full":
        if os.environ.get("FAKE_DEATH"):
            os._exit(9)
        raise RuntimeError("no memory\\nat all")
    if method == "fedavg_pseudo":
        raise ConfigError("setting 'fedavg.lr' = 1: too much")
    print("noise of", method, flush=True)
    folder = RunFolder(config.run.out_dir)
    folder.begin(config, {}, {"pair_digest": os.environ.get("FAKE_PAIR", "p"), "data_digest": "d"})
    folder.stage_seconds["cloud"] = 2.0
    columns = ["round", "device", "status", "uplink_bytes", "downlink_bytes", "flops_forward"]
    ledger = pd.DataFrame(columns=columns)
    drift = DRIFT.get(method, 0.7)
    for r in range(n + 1):
        if os.environ.get("FAKE_BREAK") == str(r):
            raise RuntimeError(f"round {r} broke")
        if r:
            rows = [(r, d, "failed" if (r, d) == (2, 1) else "ok", UP.get(method, 500), 10, 1e9)
                    for d in (0, 1)]
            ledger = pd.concat([f for f in (ledger, pd.DataFrame(rows, columns=columns)) if len(f)])
        folder.devices(ledger, f"ledger of {method}")
        shown = {"source": 0.9 - 0.02 * (r == n), "object": 0.4 + (drift - 0.4) * r / n + 0.01 * seed,
                 "question": 0.4 + (drift - 0.4) * r / n + 0.01 * seed}
        folder.round(r, shown, {"source": (9, 10)} if r else {}, {})
        folder.items(["source", "source", "object", "question"], np.array([1.0, 0.0, 1.0, float(seed % 2)]))
        if method != "static" and r:
            folder.pictures([{"image": png(), "positions": [0, 3], "side": 2, "question": "what <b>?",
                              "round": r, "device_answer": "cat", "teacher_answer": "dog", "device": 0}])
        progress("rounds", r, n)
        if os.environ.get("FAKE_SLOW") and r == 1:
            Path(os.environ["FAKE_SLOW"]).write_text("in round 2")
            time.sleep(60)
    folder.finish("completed")
    return folder.path
"""


@pytest.fixture(autouse=True)
def much_memory(monkeypatch):
    """What else runs on this host does not decide whether a plan fits."""
    monkeypatch.setattr(Machine, "here", classmethod(lambda cls, gpu=True: cls(64.0 * 2**30)))


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Name of an importable module with `prepare`, `teacher_accuracy` and `run_local`."""
    (tmp_path / "engine_in_test.py").write_text(ENGINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "engine_in_test", raising=False)
    return "engine_in_test"


@pytest.fixture
def command(capsys):
    """`command("simulate", ...)` -> exit code, standard output, standard error."""

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main([str(a) for a in arguments])
        shown = capsys.readouterr()
        return ended.value.code, shown.out, shown.err

    return call
