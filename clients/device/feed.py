"""What a device is asked, item by item, wherever it comes from.

A feed is read by the agent between orders. It goes on behind the last item whose samples lie in the spool,
and the spool keeps which one that was in the same transaction, so that nothing is read twice and nothing is
left out, whenever power goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Encoded = bytes | tuple[bytes, ...]
"""A picture as its file has it, or the frames of a clip in their order."""
MOST_FRAMES = 256  # of a clip that a program gives; fewer are read


@dataclass(frozen=True, eq=False)
class Item:
    """A question about a picture or a clip.

    Attributes:
        question: its words; where there are tokens, as they were published, the instruction included.
        picture: or frames; b"" where there are tokens.
        key: where in the feed it is. A feed that is made with the key of an item goes on behind that item.
        tokens: (n, D) float16, where the feed has what the tower makes of the picture.
        grid: n, rows and columns of these.
    """

    question: str
    picture: Encoded
    key: str
    tokens: np.ndarray | None = None
    grid: tuple[int, int, int] = (0, 0, 0)


def unlike(clip: bool, frames: int) -> str:
    """What is wrong where a student is given a picture and reads clips, or the other way round; "" = nothing.

    Args:
        clip: whether it is given a clip.
        frames: that the student reads of a clip; 0 = it reads pictures.
    """
    if frames and not clip:
        return (
            f"a picture, and the student reads clips of {frames} frames; allowed: 'frames', a list (of "
            "`device ask`: --image several times)"
        )
    if clip and not frames:
        return "the frames of a clip, and the student reads pictures; allowed: 'image'"
    return ""


def round_key(round: int) -> str:
    """The key of all items that come with the order of a round."""
    return f"round {round:09d}"


class Feed(Protocol):
    """Where items come from. It is made with the key of the last item that was spooled, "" at first."""

    def poll(self, most: int) -> Sequence[Item]:
        """The next items, in order and at most so many; at once, and none where there is nothing new. What
        cannot be read is left out and said in the log. Asked again before `spooled`, it may give them again.
        """
        ...

    def spooled(self, key: str) -> None:
        """The samples of all items up to the one of this key lie in the spool."""
        ...

    def place(self) -> str:
        """The key behind all that was read and could not be used, where nothing waits to be spooled and the
        feed begins there when it is made anew; "" = the last item's."""
        ...

    def asked(self, round: int) -> Sequence[Item]:
        """What comes with the order of a round, with `round_key` as key; none where time is not in rounds.
        The agent leaves out what was spooled before.
        """
        ...
