"""The cache of tower outputs: vision tokens of every picture, computed once for a tower and a pack.

The vision tower is frozen and shared by teacher and student, so its outputs never change: they are computed
once per (tower, pack, split) and memory-mapped by every process and every later run. Pictures may have
different numbers of tokens: all rows stand one after another in one file, and a small index says where those
of a picture begin and how they lie.

A clip is one "picture" of several frames: its tokens are those of the frames that a run reads of it, one
frame after another, and its grid is theirs, one below the other. So whatever works on the tokens of a picture
works on those of a clip, and position p is place p % n of frame p // n, with n tokens a frame.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from cdc_flower.config import ConfigError
from cdc_flower.disk import whole

BATCH = 64  # pictures per call of the tower
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""What is opened: common bitmap formats alone."""
OPENED = 2
"""How a picture is opened, by number: part of the names of stored tokens."""
ORIENTATION = 0x0112  # tag of EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by what it says of itself."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and how many there are."""


class Grid(NamedTuple):
    """How the tokens of a picture lie.

    Attributes:
        n: how many there are.
        rows, cols: of the grid they form; `rows * cols` is n where they form one.
    """

    n: int
    rows: int
    cols: int

    def of_clip(self, frames: int) -> Grid:
        """Of a clip whose frames have this grid: one frame below the other."""
        return Grid(frames * self.n, frames * self.rows, self.cols)

    def of_frame(self, frames: int) -> Grid:
        """Of one frame of a clip of this grid."""
        return Grid(self.n // frames, self.rows // frames, self.cols)


Encode = Callable[[list[Image.Image]], Iterable[tuple[np.ndarray, Grid]]]
"""Pictures -> of each its vision tokens (n, D), of any float type, and how they lie."""


@dataclass(frozen=True, eq=False)
class Features(Sequence[np.ndarray]):
    """Vision tokens of many pictures; `features[i]` is (n_i, D) float16.

    Attributes:
        flat: (T, D) float16, memory-mapped: the tokens of all pictures, one picture after another.
        index: (pictures, 4) int64: the first row in `flat`, and n, rows, cols of the picture's grid.
    """

    flat: np.ndarray
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, picture):
        first, n = self.index[picture, :2]
        return self.flat[first : first + n]

    def grid(self, picture: int) -> Grid:
        """How the tokens of a picture lie."""
        return Grid(*self.index[picture, 1:].tolist())


def cache_folder(setting: str = "") -> Path:
    """Where tower outputs are kept: the setting, else `$CDC_FLOWER_CACHE`, else `~/.cache/cdc_flower`."""
    named = setting or os.environ.get("CDC_FLOWER_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "cdc_flower"


def open_picture(data: bytes) -> Image.Image:
    """A picture of a pack, as `rgb` makes it; packs were checked when they were read."""
    return rgb(Image.open(io.BytesIO(data), formats=FORMATS))


def rgb(picture: Image.Image) -> Image.Image:
    """A picture as people see it: upright, in RGB, of 16 bits the upper eight."""
    picture.load()
    plain = picture
    if picture.mode.startswith("I;16"):  # Pillow cuts at 255, which makes nearly all of it white
        plain = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    plain, turn = plain.convert("RGB"), turned(picture)
    return plain if turn is None else plain.transpose(turn)


def turned(picture: Image.Image) -> Image.Transpose | None:
    """What makes a decoded picture upright; None where it is, or where what it says of itself is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return TURNS.get(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # whatever Pillow raises of damaged EXIF; viewers show such a picture as it lies
        return None


def spread(count: int, frames: int) -> list[int]:
    """Which of `count` frames are read, where `frames` are: evenly spread, the first and the last among them;
    the nearest repeated where there are fewer.
    """
    return np.rint(np.linspace(0, count - 1, frames)).astype(int).tolist()


def stacked(frames: Sequence[tuple[np.ndarray, Grid]]) -> tuple[np.ndarray, Grid]:
    """The tokens (F n, D) of a clip and their grid, from those of its F frames.

    Raises:
        ValueError: frames have different grids.
    """
    grids = sorted({grid for _, grid in frames})
    if len(grids) > 1:
        raise ValueError(f"frames of one clip have {grids[0].n} and {grids[1].n} tokens")
    tokens = np.concatenate([np.asarray(tokens) for tokens, _ in frames])
    return tokens, Grid(len(tokens), len(frames) * grids[0].rows, grids[0].cols)


def index_path(path: Path) -> Path:
    """The file of the index that belongs to a file of tokens."""
    return path.with_suffix(".index.npy")


def read(path: Path) -> Features | None:
    """Stored features; None where there are none that can be used.

    Args:
        path: the `.npy` file of the tokens.
    """
    try:  # open_memmap never unpickles: object arrays are refused
        flat = np.lib.format.open_memmap(path, mode="r")
        index = np.array(np.lib.format.open_memmap(index_path(path), mode="r"))
    except (OSError, ValueError):
        return None
    right = flat.ndim == 2 and flat.dtype == np.float16 and index.ndim == 2 and index.dtype == np.int64
    if not right or index.shape[1] != 4 or not np.array_equal(index[:, 0], _starts(index[:, 1])):
        return None
    return Features(flat, index) if index[:, 1].sum() == len(flat) else None


def features_of(
    images: Mapping[str, bytes | tuple[bytes, ...]],
    path: Path,
    encode: Encode,
    tower: str,
    progress: Progress | None = None,
    stage: str = "tokens",
    frames: int = 0,
) -> Features:
    """The tower's outputs of all pictures, from `path` or computed and stored there.

    Files appear whole or not at all, so processes that start together at worst compute the same thing twice.

    Args:
        images: name -> encoded picture, or the frames of a clip; the order gives the rows.
        path: the `.npy` file of the tokens; the index lies beside it.
        encode: the tower.
        tower: whose it is, for messages.
        progress: see `Progress`.
        stage: the word handed to `progress`.
        frames: that are read of a clip, evenly spread; 0 = `images` are pictures.

    Raises:
        ConfigError: the tower gives values that are not finite, or a file cannot be written.
    """
    stored = read(path)
    if stored is not None and len(stored) == len(images):
        return stored
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        grids: list[Grid] = []
        with whole(path) as file:
            rows = width = 0
            for tokens, grid in _encoded(images, encode, tower, progress, stage, frames):
                if not grids:
                    width = tokens.shape[1]
                    _header(file, 0, width)
                file.write(np.ascontiguousarray(tokens).tobytes())
                grids.append(grid)
                rows += grid.n
            file.seek(0)
            _header(file, rows, width)
        counts = np.array(grids, np.int64)
        with whole(index_path(path)) as file:
            np.save(file, np.column_stack([_starts(counts[:, 0]), counts]), allow_pickle=False)
    except OSError as err:
        raise ConfigError(
            f"token cache '{path.parent}': cannot be written: {err}; allowed: any writable "
            "folder (setting 'pair.token-cache' or variable CDC_FLOWER_CACHE)"
        ) from None
    found = read(path)
    assert found is not None
    return found


def _starts(counts: np.ndarray) -> np.ndarray:
    return np.cumsum(counts) - counts


def _header(file: IO[bytes], rows: int, width: int) -> None:
    """Of an `.npy` file; numpy leaves room in it for any number of rows."""
    shape = {"descr": "<f2", "fortran_order": False, "shape": (rows, width)}
    np.lib.format.write_array_header_1_0(file, shape)


def _encoded(
    images: Mapping[str, bytes | tuple[bytes, ...]],
    encode: Encode,
    tower: str,
    progress: Progress | None,
    stage: str,
    frames: int,
) -> Iterator[tuple[np.ndarray, Grid]]:
    names, done, each = list(images), 0, max(1, frames)
    while done < len(names):
        some = names[done : done + max(1, BATCH // each)]
        decoded = [open_picture(data) for name in some for data in _read(images[name], frames)]
        try:
            encoded = list(encode(decoded))
            if frames:
                encoded = [stacked(encoded[at : at + each]) for at in range(0, len(encoded), each)]
        except ValueError as err:
            raise ConfigError(
                f"pictures '{some[0]}' to '{some[-1]}': the processor of pair '{tower}' takes not all "
                f"of them ({err}); allowed: pictures without that one"
            ) from None
        for tokens, grid in encoded:
            half = np.asarray(tokens).astype(np.float16)
            if not np.isfinite(half).all():
                raise ConfigError(
                    f"the vision tower of pair '{tower}' gives values that are not finite "
                    f"in float16 for picture '{names[done]}'"
                )
            yield half, grid
            done += 1
        if progress is not None:
            progress(stage, done, len(names))


def _read(data: bytes | tuple[bytes, ...], frames: int) -> Sequence[bytes]:
    """The encoded pictures that are read of a sample."""
    if isinstance(data, bytes):
        return [data]
    return [data[i] for i in spread(len(data), frames)]


def place_folder(part: Path, folder: Path) -> None:
    """Give a folder its name; one that was there under it gives way."""
    try:
        part.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        old = Path(tempfile.mkdtemp(prefix=".", suffix=".part", dir=folder.parent))
        folder.rename(old / folder.name)
        part.rename(folder)
        shutil.rmtree(old)
