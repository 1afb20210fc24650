"""What an answer is worth, by task; used where answers are counted: on the stream and on held-out items."""

from __future__ import annotations

from collections.abc import Callable

from cdc_flower.tasks.exact import exact

Worth = Callable[[str, str], float]
"""What was said, and what is true -> what that is worth, 0 to 1."""

TASKS: dict[str, Worth] = {"exact": exact}
"""Name -> how answers are judged."""

__all__ = ["TASKS", "Worth", "exact"]
