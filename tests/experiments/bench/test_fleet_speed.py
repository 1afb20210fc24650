"""A day of a small fleet passes in both modes, and its events are counted."""

from experiments.bench import fleet_speed


def test_a_day_has_more_events_the_more_devices_there_are():
    few, many = fleet_speed.measure(20), fleet_speed.measure(80)
    assert set(few) == {"sync", "async"}
    for mode, (events, seconds) in few.items():
        assert 0 < events < many[mode][0]
        assert seconds > 0
