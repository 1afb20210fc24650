"""The stream of a demo is what the simulator published, round by round."""

import numpy as np
import pytest

from cdc_flower.config import ConfigError
from cdc_flower.data.source import source
from clients.device.feed import round_key
from clients.device.stream import Stream


def test_the_items_of_a_round_are_those_of_the_simulated_device(student):
    stream = Stream.of(student.config, student.shared, 1)
    simulated = source(student.config, student.shared, 1)
    items = stream.asked(2)
    assert [i.question for i in items] == [simulated.question(i) for i in simulated.items(2)]
    assert {i.key for i in items} == {round_key(2)}
    assert {i.picture for i in items} == {b""}
    for item, number in zip(items, simulated.items(2), strict=True):
        assert item.tokens is not None
        np.testing.assert_array_equal(item.tokens, simulated.tokens(number))
        assert item.grid == simulated.grid(number)


def test_before_the_first_and_after_the_last_round_and_between_rounds_there_is_nothing(student):
    stream = Stream.of(student.config, student.shared, 0)
    assert len(stream.asked(3)) == 6
    assert [len(stream.asked(round)) for round in (0, 4, 10**9)] == [0, 0, 0]
    assert len(stream.poll(10)) == 0


def test_a_device_that_is_not_in_it_is_refused(student):
    with pytest.raises(ConfigError, match="the stream has 2 devices"):
        Stream.of(student.config, student.shared, 2)
    assert round_key(9) < round_key(10)
