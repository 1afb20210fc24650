"""The student of a device, loaded once: what it reads of an item, and what it answers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from cdc_flower.config import Config, ConfigError, parse_stages
from cdc_flower.data.bitmaps import MAX_BYTES, MAX_PIXELS
from cdc_flower.data.features import FORMATS, Grid, rgb, spread, stacked
from cdc_flower.data.instruction import asked, said, told_by_card
from cdc_flower.models import adapters, placement, vlm
from cdc_flower.models.shared import Shared, load_shared
from cdc_flower.stages import PairConfig
from clients.device import models
from clients.device.feed import Encoded, Item, unlike
from clients.device.rows import MOST_PIXELS
from clients.device.settings import Bundle
from clients.store import Adapter
from clients.task import Resident, resident

ROWS = 16  # items that are answered together
MOST_WORDS = 2**14  # characters of a question


class ItemError(ValueError):
    """An item that cannot be answered; the message says why."""


@dataclass(frozen=True, eq=False)
class Read:
    """An item as the student reads it.

    Attributes:
        item: which; its question with the instruction that a pack's would have.
        tokens: (n, D) float16 of its picture, or of the frames of its clip that are read.
        grid: how they lie.
        ids: of its question.
    """

    item: Item
    tokens: np.ndarray
    grid: Grid
    ids: list[int]


@dataclass(frozen=True, eq=False)
class Student:
    """The models of a device.

    Attributes:
        config: of the run, without the settings of methods.
        shared: tower and tokenizer.
        models: settings of the student, with the compression of this device.
        longest: ids of a question, at most; 0 = any.
        padded: ids that a prompt is padded to in a round, at least.
    """

    config: Config
    shared: Shared
    models: PairConfig
    longest: int = 0
    padded: int = 0

    @classmethod
    def of(cls, bundle: Bundle) -> Student:
        """Check and load the models of a bundle.

        Raises:
            ConfigError: settings or models that cannot be used.
        """
        own = bundle.device
        folders = {setting: str(folder) for setting, folder in models.verify(bundle.folder).items()}
        config = parse_stages(
            {**bundle.run_config(), **folders, "pair.token-cache": str(bundle.stream), "run.out-dir": ""}
        )
        pair = replace(config.pair, compression=own.compression or config.pair.compression)
        if pair.compression == "auto":
            raise ConfigError(
                "setting 'pair.compression' = 'auto' in settings.json: a device does not choose; allowed: "
                "'compression' in device.toml, one of nf4, int4, int8, none"
            )
        torch.set_num_threads(own.threads or config.run.threads)
        placement.choose(own.device or config.run.device)
        shared = load_shared(config.pair, config.data.name, config.data.frames)
        resident(shared, pair)  # loaded now, not with the first question
        return cls(config, shared, pair, own.longest_question)

    @property
    def instruction(self) -> str:
        """Said behind a question, in a line of its own: what a bare checkpoint is taught with."""
        return said(told_by_card(self.config.data, self.shared.card))

    @property
    def resident(self) -> Resident:
        """The student; loaded once in a process."""
        return resident(self.shared, self.models)

    def read(self, item: Item) -> Read:
        """What the student reads of an item.

        Raises:
            ItemError: a question or picture that cannot be used.
        """
        text = self.shared.text
        if not 0 < len(item.question) <= MOST_WORDS:
            raise ItemError(f"a question of {len(item.question)} characters; allowed: 1 to {MOST_WORDS}")
        if any(word in item.question for word in (text.mark, text.image)):
            raise ItemError(f"a question with {text.image} in it, which stands for a picture; allowed: words")
        if item.tokens is None:  # what was published has it
            item = replace(item, question=asked(item.question, self.instruction))
        ids = text.question_ids(item.question)
        if self.longest and len(ids) > self.longest:
            raise ItemError(
                f"a question of {len(ids)} ids (its prompt's end included); allowed: {self.longest}, the "
                "longest of the data that the cloud has (setting 'longest-question' of device.toml)"
            )
        if item.tokens is not None:
            return Read(item, item.tokens, Grid(*item.grid), ids)
        return Read(item, *self._encoded(item.picture), ids)

    def _encoded(self, picture: Encoded) -> tuple[np.ndarray, Grid]:
        """Tokens (n, D) float16 of a picture, or of the frames of a clip that are read; and how they lie.

        Raises:
            ItemError: a picture or clip that cannot be used.
        """
        frames, encoded, size, pixels = self.shared.frames, dict[bytes, Any](), (0, 0), 0
        if wrong := unlike(not isinstance(picture, bytes), frames):
            raise ItemError(wrong)
        every = (picture,) if isinstance(picture, bytes) else picture
        each = [every[i] for i in spread(len(every), max(1, frames))]
        try:
            for data in dict.fromkeys(each):  # one after another: decoded, a frame may have 48 MiB
                one = opened(data)
                size = size if pixels else one.size
                pixels += one.width * one.height
                if one.size != size:
                    raise ValueError(f"frames of {size} and of {one.size} pixels; allowed: one size")
                if pixels > MOST_PIXELS:
                    raise ValueError(f"frames of more than {MOST_PIXELS} pixels together")
                (encoded[data],) = self.shared.encode([one])
            tokens, grid = stacked([encoded[data] for data in each]) if frames else encoded[each[0]]
        except ValueError as err:
            raise ItemError(f"a picture that cannot be used: {err}") from None
        half = np.asarray(tokens).astype(np.float16)
        if not np.isfinite(half).all():
            raise ItemError("a picture of which the tower gives values that are not finite")
        return half, grid

    def answer(self, read: Sequence[Read], adapter: Adapter) -> vlm.Answers:
        """Answers of at least one item, with an adapter."""
        model, text = self.resident.model, self.shared.text
        adapters.write(model, adapter.flat)
        inputs = vlm.collate(
            text, [r.tokens for r in read], [r.ids for r in read], grids=[r.grid for r in read]
        )
        return vlm.answer(model, text, inputs, self.shared.max_answer_tokens)

    def prompt(self, grids: Sequence[Grid]) -> int:
        """Ids to which prompts with pictures of these grids are padded: those of the longest question."""
        longest = max((len(self.shared.text.prefix(grid).ids) for grid in set(grids)), default=0)
        return max(self.padded, longest + self.longest)


def opened(data: bytes) -> Image.Image:
    """A picture, as `features.rgb` makes it.

    Raises:
        ValueError: too large, or none that can be decoded.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data)} bytes; allowed: {MAX_BYTES}")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(f"{picture.width} x {picture.height} pixels; allowed: {MAX_PIXELS} in all")
            return rgb(picture)
    except ValueError:
        raise
    except UnidentifiedImageError:
        raise ValueError(f"none of {', '.join(FORMATS)}") from None
    except Exception as err:  # whatever Pillow's decoders raise of damaged bytes
        raise ValueError(str(err).splitlines()[0] if str(err) else type(err).__name__) from None
