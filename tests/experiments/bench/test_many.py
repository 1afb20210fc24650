"""Figures of many devices follow from what was measured."""

from experiments.bench import many


def test_of_two_calls_each_has_its_fastest_turn():
    def count(turns):
        return lambda: sum(range(turns))

    short, long = many.side_by_side(count(10), count(3_000_000), 3)
    assert 0 <= short < long


def test_devices_with_adapters_of_their_own_are_counted():
    (found,) = many.personal(quick=True)
    assert found.name == "8 devices of 2 samples with 8 adapters: device-tasks/s, / one at a time"
    assert found.ratio == found.value / found.limit > 0


def test_memory_is_that_of_the_last_round_beside_the_second():
    found = many.flat("x", [50_000_000, 10_000_000, 30_000_000, 11_000_000], "<= 1.05")
    assert (found.value, found.limit, found.ok) == (11.0, 10.0, False)
    assert many.flat("x", [9, 100, 104], "<= 1.05").ok
