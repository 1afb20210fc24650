"""What a plan knows of the data and of the sequences: from settings, tokenizer and files' headers alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor

from cdc_flower.config import Config
from cdc_flower.data import clips
from cdc_flower.data.features import Grid
from cdc_flower.data.packs import GENERATED, shards
from cdc_flower.data.world import LIVED
from cdc_flower.fleet.cost.cost_models import TEXT
from cdc_flower.models.families import FAMILIES
from cdc_flower.models.folders import paths, read
from cdc_flower.models.shared import card_frames

QUESTION = 10  # ids of a long question, where only the data would say
AROUND = 4  # ids around a frame of a clip, in families' own prompts; one in pairs made here
PHOTO = 480, 640  # pixels of a picture, where families read each in its own size
SCENE = 96, 96
SCENE_BYTES = 17_500  # of a generated picture in memory, with its questions (measured)
CLIP_BYTES = 20_000  # of a generated clip in memory, with its questions; its frames are drawn when asked for
TEXT_GROWS = 8  # times that a text takes more in pandas than in a parquet file


@dataclass(frozen=True)
class Data:
    """Sizes of a data set.

    Attributes:
        train, test: pictures of the splits.
        memory: bytes that its tables, and pictures that do not stay on disk, take.
    """

    train: int
    test: int
    memory: int


@dataclass(frozen=True)
class Lengths:
    """Ids of sequences.

    Attributes:
        picture: N, tokens of a picture.
        text: prompt and question.
        answer: the longest, with its end.
    """

    picture: int
    text: int
    answer: int

    @property
    def prompt(self) -> int:
        """Of a complete picture and its question."""
        return self.picture + self.text


def data(config: Config) -> Data:
    """The data of a run; of a pack its files' footers are read."""
    own = config.data
    if own.pack == "scenes":
        pictures = own.scenes_train + own.scenes_test
        return Data(own.scenes_train, own.scenes_test, SCENE_BYTES * pictures)
    if own.pack == "clips":
        users = len(clips.users_of(own.clips_users, LIVED))
        train, test = users * own.clips_each, users * clips.tested(own.clips_each)
        return Data(train, test, CLIP_BYTES * (train + test))
    files = {split: shards(Path(own.pack), split) for split in ("train", "test")}
    found = {split: [_footer(path) for path in named if path.exists()] for split, named in files.items()}
    memory = sum(of_file for footers in found.values() for _, of_file in footers)
    train, test = (sum(rows for rows, _ in found[split]) for split in ("train", "test"))
    return Data(train, test, memory)


def _footer(path: Path) -> tuple[int, int]:
    """Rows of a parquet file, as a bound of its pictures, and bytes that it takes once it is read."""
    import pyarrow.parquet as pq

    footer = pq.ParquetFile(path).metadata
    columns = [
        footer.row_group(group).column(i)
        for group in range(footer.num_row_groups)
        for i in range(footer.num_columns)
    ]
    of_pictures = [c.path_in_schema.split(".")[0] in ("image", "frames") for c in columns]
    sizes = [c.total_uncompressed_size for c in columns]
    pictures = sum(size for size, of in zip(sizes, of_pictures, strict=True) if of)
    return footer.num_rows, (0 if "-" in path.stem else pictures) + TEXT_GROWS * (sum(sizes) - pictures)


def lengths(config: Config, shape: Any, path: str, role: str = "student") -> Lengths:
    """Ids of the sequences that a run makes.

    Args:
        config: of the run.
        shape: the configuration of the model that reads them.
        path: its checkpoint; of a family whose pictures differ the picture processor is read.
        role: "teacher" or "student", for messages.
    """
    family, card = FAMILIES[shape.model_type], paths(config.pair, config.data.name).card
    frames = card_frames(card) if card else config.data.frames
    grid = family.grid(shape)
    if grid is None:
        processor = read(AutoImageProcessor, path, role, "picture processor", backend="pil")
        grid = Grid(*family.layout(shape, processor, SCENE if config.data.pack == "scenes" else PHOTO))
    text = QUESTION + frames if config.data.pack in GENERATED else TEXT + AROUND * frames
    return Lengths(max(1, frames) * grid.n, text, config.pair.max_answer_tokens + 1)
