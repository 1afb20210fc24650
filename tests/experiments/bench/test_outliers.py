"""What the table of outlying channels says holds: a transform keeps the others, nothing loses them."""

import pytest

from experiments.bench import outliers


@pytest.mark.parametrize("kind", outliers.KINDS)
def test_a_transform_keeps_the_other_channels(kind, monkeypatch):
    monkeypatch.setattr(outliers, "WIDTH", 128)
    monkeypatch.setattr(outliers, "TOKENS", 1024)
    plain, scaled, turned = outliers.errors(kind, 3)
    assert turned < 0.35
    assert turned < 1.1 * scaled
    assert turned < plain
