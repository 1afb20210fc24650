"""What a reader of a table must know about a method: who sees labels, who does backpropagation."""

from __future__ import annotations

from typing import NamedTuple


class Traits(NamedTuple):
    """What a method asks of its devices."""

    labels: bool  # they learn from true answers
    device_backprop: bool  # they compute gradients
