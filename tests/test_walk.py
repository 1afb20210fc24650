"""Claims about the guide's walks: their lines, as they stand there, lead from pictures to what they say."""

from __future__ import annotations

import csv
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


def lines(walk):
    """The commands of a walk."""
    text = (ROOT / "docs" / "guide.md").read_text()
    return re.search(r"```sh\n(.*?)```", text[text.index(f"### A walk: {walk}") :], re.S)[1]


def photos(folder):
    """80 pictures, two questions about each, in the file that the walks speak of."""
    folder.mkdir()
    rows = []
    for i in range(80):
        thing = list(THINGS)[i % 4]
        Image.new("RGB", (24 + i % 3, 24), (3 * i, 40 * (i % 4), 200 - i)).save(folder / f"{i}.png")
        rows.append({"image": f"{i}.png", "question": "what is it?", "answer": thing, "thing": thing})
        rows.append({**rows[-1], "question": "what is the colour?", "answer": THINGS[thing]})
    return rows


def walked(commands, folder, **variables):
    """What a shell says to the commands in a folder."""
    variables = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    said = subprocess.run(
        ["sh", "-e", "-c", commands], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr[-3000:] + said.stdout[-3000:]
    return said


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_pictures_without_models_come_to_a_report_that_says_what_it_is_worth(tmp_path):
    with (tmp_path / "table.csv").open("w", newline="") as stream:
        rows = photos(tmp_path / "photos")
        table = csv.DictWriter(stream, rows[0])
        table.writeheader()
        table.writerows(rows)
    (tmp_path / "table.csv").rename(tmp_path / "photos" / "all.csv")
    said = walked(lines("your own pictures"), tmp_path, CDC_FLOWER_CACHE=str(tmp_path / "cache"))
    assert [line for line in said.stderr.splitlines() if line.startswith("stage 2 of 3: teacher")]
    hardly = "was hardly trained (2 % of its steps)"
    assert hardly in " ".join(said.stderr.split())
    assert hardly in (tmp_path / "results" / "try" / "report.html").read_text()
    assert "| static |" in said.stdout
    assert (tmp_path / "sheet.html").is_file()


@pytest.mark.slow
def test_the_walk_ends_with_a_model_that_transformers_loads(tmp_path, monkeypatch):
    rows = photos(tmp_path / "photos")
    (tmp_path / "photos" / "all.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    teacher = tiny.write("llava", tmp_path / "teacher", WORDS)
    student = tiny.write("llava", tmp_path / "student", WORDS, seed=1, tower=load_tower(str(teacher)))
    first, rest = lines("your models").split("\n", 1)
    assert first.startswith("export TEACHER=")  # models of the hub
    walked(rest, tmp_path, TEACHER=str(teacher), STUDENT=str(student))
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
