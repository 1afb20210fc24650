"""METEOR and SPICE, which are Java programs: computed by pycocoevalcap where that and Java are installed.

`pip install cdc-flower[captions]` brings pycocoevalcap with both programs (104 MB). SPICE also needs
Stanford's parser, which pycocoevalcap fetches when it is first asked; nothing is fetched here, so it is
computed only where that parser already lies beside it. Where anything is missing a figure is None: not
computed.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def folder() -> Path | None:
    """Where pycocoevalcap is; None without it, or without Java."""
    found = find_spec("pycocoevalcap")
    if found is None or not found.submodule_search_locations or shutil.which("java") is None:
        return None
    return Path(next(iter(found.submodule_search_locations)))


def _score(scorer: Any, said: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    given = {i: [text] for i, text in enumerate(said)}
    return float(scorer.compute_score({i: list(texts) for i, texts in enumerate(references)}, given)[0])


def meteor(said: Sequence[str], references: Sequence[Sequence[str]]) -> float | None:
    """METEOR 1.5 of all captions together, 0 to 1; words are separated by spaces."""
    if folder() is None or not said:
        return None
    from pycocoevalcap.meteor.meteor import Meteor  # pyright: ignore[reportMissingImports]

    scorer = Meteor()
    try:
        return _score(scorer, said, references)
    finally:
        scorer.meteor_p.kill()
        for stream in (scorer.meteor_p.stdin, scorer.meteor_p.stdout, scorer.meteor_p.stderr):
            stream.close()


def spice(said: Sequence[str], references: Sequence[Sequence[str]]) -> float | None:
    """The mean SPICE of captions, 0 to 1; words are separated by spaces."""
    here = folder()
    if here is None or not said or not any((here / "spice" / "lib").glob("stanford-corenlp-*-models.jar")):
        return None
    from pycocoevalcap.spice.spice import Spice  # pyright: ignore[reportMissingImports]

    return _score(Spice(), said, references)
