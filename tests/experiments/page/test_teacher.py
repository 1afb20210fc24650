"""The teacher is asked what devices meet, and the held-out items."""

import json

import pytest

from cdc_flower.config import parse
from experiments.page import teacher
from strategies.run import teacher_accuracy


def test_the_teacher_answers_test_and_stream(run_settings):
    settings = run_settings(method="static")
    folder = teacher.run_local(parse(settings))
    found = json.loads((folder / teacher.FILE).read_text())
    assert found["on_test"] == pytest.approx(teacher_accuracy(parse(settings)), abs=1e-6)
    assert set(found["on_stream"]) <= {"source", "object", "question"}
    assert 0 < found["stream_items"] <= 3 * 3 * 6  # devices, rounds, samples
