"""A share of the steps is a share."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps-share", "0"], "steps-share = 0; allowed: above 0, at most 1"),
        (["--teacher-share", "0"], "steps-share = 0; allowed: above 0, at most 1"),
        (["--steps-share", "1.5"], "'--steps-share': 1.5 is not in the range 0<=x<=1"),
    ],
)
def test_what_is_no_share_is_refused(refused, arguments, message):
    assert message in refused("pretrain", *arguments)
