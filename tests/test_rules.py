"""What the settings say of one another is refused before anything is loaded."""

import pytest

from cdc_flower.config import ConfigError, keys, parse
from cdc_flower.rules import RULES


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"run.fail-devices": "9:99"}, "'9:99'; allowed: rounds from 1, devices from 0 to 7"),
        ({"run.fail-devices": "0:1"}, "'0:1'; allowed: rounds from 1"),
        ({"run.fail-devices": "2:1", "run.devices": 1}, "allowed: rounds from 1, devices from 0 to 0"),
        ({"run.fail-devices": "soon"}, "; allowed: round:device pairs"),
        ({"run.poison-devices": "1,8"}, "'8'; allowed: a comma list of devices from 0 to 7"),
        ({"run.poison-devices": "1,,2"}, "''; allowed: a comma list of devices"),
        ({"run.poison-devices": "1:2"}, "'2'; allowed behind ':': noise, shuffled,"),
        ({"run.callbacks": "mail"}, "; allowed: mlflow, tensorboard, wandb"),
        ({"data.known-styles": "0%"}, "; allowed: a share from above 0% to 100%"),
        ({"data.known-objects": "150%"}, "; allowed: a share from above 0% to 100%"),
        ({"data.known-questions": "half%"}, "; allowed: a share from above 0% to 100%"),
        ({"drift.axes": "colour"}, "unknown axis 'colour'; allowed: a comma list of object"),
        ({"pair.teacher": "x"}, "go together; allowed: both or none"),
        ({"pair.student": "x"}, "go together; allowed: both or none"),
        ({"uplink.budget": 272}, "a message without a sample has up to 272 bytes"),
        ({"downlink.budget": 10}, "an update needs at least"),
        ({"fleet.zones": "15"}, "allowed: a comma list of offsets from UTC in hours, -12 to 14"),
        ({"fleet.zones": "nan"}, "allowed: a comma list of offsets from UTC in hours, -12 to 14"),
    ],
)
def test_a_value_that_the_others_forbid_is_refused(settings, says):
    with pytest.raises(ConfigError) as refused:
        parse(settings)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"run.fail-devices": "2:1, 4:7"},
        {"run.poison-devices": "0, 7"},
        {"run.poison-devices": "0,7:huge"},
        {"run.callbacks": "tensorboard"},
        {"data.known-styles": "12.5%", "data.known-objects": "a,b"},
        {"pair.teacher": "x", "pair.student": "y"},
        {"uplink.budget": 0},
        {"downlink.budget": 10, "downlink.codec": "fp16"},
        {"downlink.budget": 0.05},
        {"downlink.budget": "0.05"},
        {"fleet.zones": "-8,0,5.5"},
    ],
)
def test_what_fits_is_taken(settings):
    parse(settings)


def test_every_rule_is_of_a_setting():
    assert set(RULES) <= set(keys())
