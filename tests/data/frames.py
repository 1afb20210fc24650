"""Rows that several tests cut and draw from."""

from __future__ import annotations

import numpy as np
import pandas as pd


def frame(count: int = 240, users: int = 6) -> pd.DataFrame:
    """Rows that run through every combination of object, question and style."""
    i = np.arange(count)
    return pd.DataFrame(
        {
            "concept": np.array(["cat", "dog", "owl", "fox"])[i % 4],
            "qtype": np.array(["what", "count", "where"])[i // 4 % 3],
            "domain": np.array(["flat", "night"])[i // 12 % 2],
            "user": [f"u{k % users}" for k in i],
        }
    ).astype("str")
