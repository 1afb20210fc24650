"""Whose held-out items are whose: where users differ, a device is judged by those of its own users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cdc_flower.config import ConfigError
from cdc_flower.data.rows import as_words


@dataclass(frozen=True, eq=False)
class Owners:
    """Whose test items are whose.

    Attributes:
        rows: (train rows,) the user of each.
        parts: of each device the positions of its train rows.
        items_of: user -> (items,) int64 positions of its test items.
    """

    rows: np.ndarray
    parts: Sequence[np.ndarray]
    items_of: dict[str, np.ndarray]

    def items(self, device: int) -> np.ndarray:
        """(items,) int64, sorted: positions of the test items of all users that a device has."""
        none = np.zeros(0, np.int64)
        users = set(self.rows[self.parts[device]])
        return np.sort(np.concatenate([none, *(self.items_of.get(user, none) for user in users)]))


def owners(train: pd.DataFrame, parts: Sequence[np.ndarray], test: pd.DataFrame, by: str) -> Owners:
    """Whose items are whose.

    Args:
        train: rows that devices have, `parts` of each.
        test: held-out rows.
        by: the column that says whose a row is, in both.

    Raises:
        ConfigError: no device has an item.
    """
    whose = as_words(test[by]).to_numpy(object)
    items_of = {user: np.flatnonzero(whose == user) for user in np.unique(whose)}
    rows = as_words(train[by]).to_numpy(object)
    if not set(rows) & set(items_of):
        raise ConfigError(
            f"setting 'data.tested' = 'own': nobody (column '{by}') has both rows that devices meet and "
            "held-out ones; allowed: all; or, for clips, a pair that was made with 'data.split-by' equal to "
            "'data.partition-by'"
        )
    return Owners(rows, parts, items_of)
