"""A comparison that cannot be made is refused in one line."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "roundz=3"], "unknown setting 'roundz'; did you mean run.rounds"),
        (["--set", "run.rounds=0"], "setting 'run.rounds' = 0"),
        (["--set", "rounds"], "allowed: key=value"),
        (["--methods", "cdc,magic"], "unknown method 'magic'; allowed: cdc, fedavg"),
        (["--preset", "nope"], "unknown preset 'nope'; allowed:"),
        (["--nope"], "No such option"),
    ],
)
def test_what_cannot_be_compared_is_refused(refused, arguments, message):
    assert message in refused("compare", *arguments)
