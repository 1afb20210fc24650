"""What a process keeps between messages: models, opened files, decoded updates, parsed settings.

A process serves many devices and many runs one after another, and loading a model takes longer than a round.
What is worth keeping lies on shelves of one object, so that one call lets go of it all: `session().close()`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Session:
    """Shelves by name; on each the things last used, by their keys.

    Attributes:
        device: what models are put on, as `run.device` says (`models.placement.choose`).
        exact: whether products are made in float32 on a GPU, too (`models.placement.exact`).
    """

    def __init__(self) -> None:
        self.device = "auto"
        self.exact = False
        self._shelves: dict[str, OrderedDict[Hashable, Any]] = {}

    def shelf(self, name: str) -> OrderedDict[Hashable, Any]:
        """A shelf, to be filled and bounded by whoever names it; what was used last stands at the end."""
        return self._shelves.setdefault(name, OrderedDict())

    def once(self, name: str, key: Hashable, make: Callable[[], T], most: int) -> T:
        """What stands on a shelf under a key, made if it is not there; the `most` used last stay."""
        shelf = self.shelf(name)
        if key not in shelf:
            shelf[key] = make()
        shelf.move_to_end(key)
        while len(shelf) > most:
            shelf.popitem(last=False)
        return shelf[key]

    def forget(self, function: Callable[..., Any]) -> None:
        """Let go of what a function gave that is `kept`."""
        self.shelf(_name(function)).clear()

    def close(self) -> None:
        """Let go of everything."""
        self._shelves.clear()


_OF_THIS_PROCESS = Session()


def _name(function: Callable[..., Any]) -> str:
    """Of a function's shelf."""
    return f"{function.__module__}.{function.__qualname__}"


def session() -> Session:
    """The session of this process."""
    return _OF_THIS_PROCESS


def kept(most: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A function whose last `most` results stay in the session, by its (hashable, positional) arguments."""

    def wrap(function: Callable[P, T]) -> Callable[P, T]:
        name = _name(function)

        @wraps(function)
        def call(*args: P.args, **named: P.kwargs) -> T:
            key = (*args, *named.items())
            return session().once(name, key, lambda: function(*args, **named), most)

        return call

    return wrap
