"""A small page, and its cells by the stand-in engine."""

import pytest

from cdc_flower.run_folder import RunFolder
from experiments.page import digests, make, teacher
from experiments.page import plan as planning

PAGE = """
edition = 1
data = ["scenes", "emoji"]
[arms."random tokens"]
uplink.token-score = "random"
[parts.main]
kind = "main"
data = ["scenes", "emoji"]
seeds = 2
methods = ["static", "cdc"]
arms = ["random tokens"]
summary = ["cdc", "random tokens"]
[parts.ladder]
kind = "ladder"
data = ["scenes"]
seeds = 2
methods = ["cdc"]
[parts.budgets]
kind = "budget"
data = ["scenes"]
methods = ["cdc"]
[parts.budgets.variants."1 kB"]
uplink.budget = 1000
[parts.budgets.variants."2 kB"]
uplink.budget = 2000
[parts.crossing]
kind = "crossing"
data = ["scenes"]
pairs = ["scenes", "weak"]
methods = ["cdc"]
once = ["fedprox_lora"]
"""


@pytest.fixture
def page_file(tmp_path):
    path = tmp_path / "page.toml"
    path.write_text(PAGE)
    return path


@pytest.fixture
def plan(page_file):
    return planning.read(page_file)


@pytest.fixture
def making(engine, plan, tmp_path, monkeypatch):
    """`making(only=..., ...)` makes cells of the page with the stand-in engine, in this process."""
    monkeypatch.setattr(digests, "of_pair_and_data", lambda config: {"pair": "p", "data": "d"})
    monkeypatch.setattr(digests, "of_method", lambda name: name)

    def taught(config, progress=None, resume=False):
        folder = RunFolder(config.run.out_dir).path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / teacher.FILE).write_text(
            '{"on_test": {"source": 0.9, "object": 1.0, "question": 0.8}, "items": {},'
            ' "on_stream": {"source": 0.9, "object": 0.7, "question": 0.9}}'
        )

    monkeypatch.setattr(teacher, "run_local", taught)
    sets = {"run.rounds": 4, "run.devices": 2}

    def call(only=("main", "scenes"), seeds=1, of=plan, folder=tmp_path / "docs/results", **options):
        tasks = make.tasks(of, of.cells(only, seeds), folder, sets)
        todo = [task for task in tasks if task.todo]
        options = {"workers": 0, "listen": lambda event: None, "engine": engine, **options}
        return tasks, make.make(todo, folder, tmp_path / "out", **options)

    call.folder = tmp_path / "docs/results"
    return call
