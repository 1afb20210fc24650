"""Retrieval of a run: how far up the right clip stands for a caption, and the right caption for a clip.

For pairs with a retrieval head (`models.retrieval`) and packs with captions. A device searches with the
captions of its own users' held-out clips, under its own adapter, among all held-out clips, at most `GALLERY`,
the same for every arm. `SEARCHING` devices do, evenly spread: each reads all of these clips with its own
adapter. The head is no part of the adapter: it reads hidden states, so an adapter changes what is found by
all of its tensors but those of the language model's own head. Devices whose adapters are equal but for these
share their vectors, which are computed once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from cdc_flower.data.world import World
from cdc_flower.draws import generator
from cdc_flower.models import adapters
from cdc_flower.models.retrieval import clip_vectors, text_vectors
from cdc_flower.models.shared import Shared
from cdc_flower.results import RETRIEVAL_COLUMNS, frame_of
from cdc_flower.tasks.retrieval import WAYS, equal, ranks
from strategies.devices import shown

GALLERY = (
    1000  # clips that a device searches at most, its own among them; the test split of MSR-VTT has as many
)
SEARCHING = 25  # devices at most


@dataclass(frozen=True, eq=False)
class Shelf:
    """Held-out clips that have a caption, each once.

    Attributes:
        places: (C,) rows of the world's `test_tokens`.
        captions: C, the first of each clip.
        users: (C,) whose each is, "" = nobody's.
        familiar: (C,) whether models know its user, "" = not said.
        order: (C,) by which others fill a gallery.
    """

    places: np.ndarray
    captions: list[str]
    users: np.ndarray
    familiar: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, world: World, user: str) -> Shelf:
        """The clips of a world; `user` is the column that says whose each is."""
        rows = world.captions.drop_duplicates("image_row")
        users, familiar = (
            rows[column].astype(str).to_numpy(object) if column in rows else np.full(len(rows), "", object)
            for column in (user, "familiar")
        )
        order = generator(0, "gallery").permutation(len(rows))
        return cls(rows["image_row"].to_numpy(), rows["answer"].astype(str).tolist(), users, familiar, order)

    def mine(self, world: World, device: int) -> np.ndarray:
        """The clips of a device, at most `GALLERY`; all where nothing is anybody's."""
        every, owners = np.arange(len(self.places)), world.owners
        if owners is not None:
            every = np.flatnonzero(np.isin(self.users, list(set(owners.rows[owners.parts[device]]))))
        return every[:GALLERY]

    def gallery(self, mine: np.ndarray) -> np.ndarray:
        """Those clips first, then others."""
        others = self.order[~np.isin(self.order, mine)]
        return np.concatenate([mine, others[: GALLERY - len(mine)]])


class Finder:
    """Measures retrieval in a run; what was found is kept while nothing changes that the head reads.

    Args:
        model: wears every adapter for a while.
        shared: has the retrieval head.
        world: has the captions.
        devices: whose retrieval is measured.
        user: the column that says whose a clip is.
    """

    def __init__(
        self, model: nn.Module, shared: Shared, world: World, devices: Sequence[int], user: str
    ) -> None:
        self.model, self.shared, self.world = model, shared, world
        self.shelf = Shelf.of(world, user)
        every = {device: self.shelf.mine(world, device) for device in devices}
        able = [device for device, mine in every.items() if len(mine)]
        self.own = {able[at]: every[able[at]] for at in (shown(len(able), SEARCHING) if able else ())}
        self._read = adapters.layout(model).places(lambda name, _: adapters.HEAD not in name)
        self._found: tuple[Mapping[int, bytes], pd.DataFrame] | None = None

    def rows(self, round: int, flats: Mapping[int, np.ndarray]) -> pd.DataFrame:
        """Rows of retrieval.parquet of a round.

        Args:
            round: of the evaluation.
            flats: device -> its adapter (P,); of those without a clip nothing is measured.
        """
        named = {d: hashlib.sha256(flats[d][self._read].tobytes()).digest()[:8] for d in self.own}
        if self._found is None or self._found[0] != named:
            self._found = named, self._measured(named, flats)
        return self._found[1].assign(round=round)

    def _measured(self, named: Mapping[int, bytes], flats: Mapping[int, np.ndarray]) -> pd.DataFrame:
        found: list[dict[str, Any]] = []
        mode = self.model.training
        self.model.eval()
        for name in dict.fromkeys(named.values()):
            devices = [device for device in named if named[device] == name]
            galleries = {device: self.shelf.gallery(self.own[device]) for device in devices}
            some = np.unique(np.concatenate(list(galleries.values())))
            with adapters.wearing(self.model, flats[devices[0]]):
                vectors = self._vectors(some)
            for device, gallery in galleries.items():
                clips, texts = (of[np.searchsorted(some, gallery)] for of in vectors)
                found += self._ranked(device, name.hex(), gallery, clips, texts)
        self.model.train(mode)
        return frame_of(found, RETRIEVAL_COLUMNS)

    def _vectors(self, some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of these clips, and of their captions."""
        shared, tokens, head = self.shared, self.world.test_tokens, self.shared.head
        assert head is not None
        places = self.shelf.places[some].tolist()
        rest = self.model, shared.text, head
        clips = clip_vectors(*rest, [tokens[i] for i in places], [tokens.grid(i) for i in places])
        return clips, text_vectors(*rest, [self.shelf.captions[i] for i in some.tolist()], shared.width)

    def _ranked(
        self, device: int, read: str, gallery: np.ndarray, clips: np.ndarray, texts: np.ndarray
    ) -> list[dict[str, Any]]:
        """Rows of one device, whose own are the first of its gallery."""
        own = len(self.own[device])
        right = equal([self.shelf.captions[i] for i in gallery.tolist()])[:own]
        found = []
        for way, asked, among in zip(WAYS, (texts, clips), (clips, texts), strict=True):
            places = ranks(asked[:own] @ among.T, right).tolist()
            for i, rank in zip(gallery[:own].tolist(), places, strict=True):
                whose = {"user": self.shelf.users[i], "familiar": self.shelf.familiar[i]}
                found.append({"round": 0, "device": device, **whose, "way": way, "rank": rank, "read": read})
        return found


def finder(
    model: nn.Module, shared: Shared, world: World, devices: Sequence[int], user: str
) -> Finder | None:
    """What measures retrieval in a run; None without a retrieval head or captions of held-out clips."""
    if shared.head is None or not len(world.captions):
        return None
    made = Finder(model, shared, world, devices, user)
    return made if made.own else None
