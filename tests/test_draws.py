"""Random numbers by purpose."""

from __future__ import annotations

from cdc_flower.draws import generator


def test_the_generator_depends_on_all_of_its_arguments_and_on_nothing_else():
    draws = {int(generator(s, p, d).integers(2**60)) for s in (0, 1) for p in ("a", "b") for d in (0, 1)}
    assert len(draws) == 8
    assert generator(7, "stream/source", 3).integers(2**31) == 977788550, "the same on every machine"
