"""The bench of a GPU runs with tiny shapes on a CPU, and says in a line that there is none."""

import json
import subprocess
import sys

import pytest
import torch

from experiments.bench import gpu


def test_tiny_shapes_run_on_a_cpu_and_write_every_figure(tmp_path, capsys):
    gpu.main(["--quick", "--device", "cpu", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "bench-gpu.json").read_text())
    names = [f["name"] for f in found]
    assert len(names) == 8
    for kind in ("teacher tiny", "student in nf4 tiny", "a step of 6 lessons of a tiny student"):
        assert sum(name.startswith(kind) for name in names) == 2
    assert all(f["value"] > 0 and f["limit"] > 0 for f in found)
    assert all(f["ratio"] < 1 for f in found if f["name"].endswith("[1/s]"))
    assert "CPU" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_one_line(tmp_path, capsys):
    gpu.main(["--out", str(tmp_path / "none")])
    assert capsys.readouterr().out == "bench-gpu: skipped, torch sees no GPU\n"
    assert not (tmp_path / "none").exists()


STEP = """
import resource, sys, torch
from cdc_flower.models import adapters
from cdc_flower.models.family import bare
from cdc_flower.models.placement import CPU
from experiments.bench import gpu
rows, again = map(int, sys.argv[1:])
size = gpu.Size("middle", 512, 1536, 6, 8, 50_000, 64, 200, 40, 8)
twin = adapters.attach(gpu.made(size, CPU), 8).train()
if again:
    bare(twin).activation_checkpointing_enable({"use_reentrant": False})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
gpu.learning(twin, size, 12, rows, torch.optim.AdamW(adapters.trainable(twin)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_step_takes_memory_by_what_passes_at_once():
    def grown(rows, again=0):
        command = [sys.executable, "-c", STEP, str(rows), str(again)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    whole, few, one = grown(12), grown(3), grown(1, again=1)
    assert whole > few > one
    assert whole > 4 * one  # measured: 1,849 MB, 869 MB and 151 MB
