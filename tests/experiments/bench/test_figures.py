"""A figure beside its limit and its target."""

import pytest

from experiments.bench.figures import figure


@pytest.mark.parametrize(
    ("value", "target", "ok"),
    [
        (1.0, "<= 1.01", True),
        (1.02, "<= 1.01", False),
        (21, ">= 20", True),
        (19, ">= 20", False),
        (9, "", True),
    ],
)
def test_a_verdict_follows_from_its_target(value, target, ok):
    assert figure("x", value, 1.0, target).ok is ok
