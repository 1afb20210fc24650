"""A part of the method that has no probe is refused."""


def test_an_unknown_part_is_refused_naming_the_known_ones(refused):
    assert "'uplink', 'downlink', 'compressions'" in refused("probe", "cloud")
