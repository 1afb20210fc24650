"""Claims about the guide's walk: its lines, as they stand there, lead from pictures to an adapted model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from cdc_flower import results
from cdc_flower.models.shared import load_tower
from tests import documents, tiny

ROOT = Path(__file__).parents[1]
THINGS = {"cup": "red", "hat": "blue", "key": "green", "map": "white"}
WORDS = "what is it colour the Answer question using a single word or phrase " + " ".join(
    [*THINGS, *THINGS.values()]
)


def lines():
    """The commands of the walk, without its first line, which names models of the hub."""
    text = (ROOT / "docs" / "guide.md").read_text()
    walk = text[text.index("### A walk: your models") :]
    block = re.search(r"```sh\n(.*?)```", walk, re.S)[1]
    first, rest = block.split("\n", 1)
    assert first.startswith("export TEACHER=")
    return rest


@pytest.mark.slow
def test_the_walk_ends_with_a_model_that_transformers_loads(tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    rows = []
    for i in range(80):
        thing = list(THINGS)[i % 4]
        Image.new("RGB", (24 + i % 3, 24), (3 * i, 40 * (i % 4), 200 - i)).save(photos / f"{i}.png")
        rows.append({"image": f"{i}.png", "question": "what is it?", "answer": thing, "thing": thing})
        rows.append({**rows[-1], "question": "what is the colour?", "answer": THINGS[thing]})
    (photos / "all.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    teacher = tiny.write("llava", tmp_path / "teacher", WORDS)
    student = tiny.write("llava", tmp_path / "student", WORDS, seed=1, tower=load_tower(str(teacher)))
    variables = {
        **os.environ,
        "TEACHER": str(teacher),
        "STUDENT": str(student),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    said = subprocess.run(
        ["sh", "-e", "-c", lines()], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr[-3000:] + said.stdout[-3000:]
    run = results.read(tmp_path / "results" / "mine")
    assert run.status == "completed"
    assert run.devices["uploaded_samples"].sum() > 0
    assert (tmp_path / "adapted" / "adapter_config.json").is_file()
    monkeypatch.chdir(tmp_path)
    (block,) = [b.text for b in documents.blocks("python") if 'from_pretrained("merged")' in b.text]
    exec(block, names := dict[str, Any]())
    merged = names["model"]
    base = AutoModelForImageTextToText.from_pretrained(student)
    changed = [
        name
        for (name, one), other in zip(merged.named_parameters(), base.parameters(), strict=True)
        if not torch.equal(one.float(), other.float())
    ]
    assert any("language_model" in name for name in changed)
