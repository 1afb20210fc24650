"""Uploaded samples as something to look at: the server knows (device, round, place), the experimenter the
picture.

In a deployment this join is impossible, because pictures stay on the devices; here it is what a report shows.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cdc_flower.data.features import spread
from cdc_flower.data.world import World
from cdc_flower.models.shared import Shared
from cdc_flower.results import SUMMARY_COLUMNS
from cdc_flower.run_folder import RunFolder
from cdc_flower.uplink.sample import NO_TOKENS, Batch, Sample

EXAMPLES = 12  # uploaded samples kept to look at

Rebuilt = Callable[[Sample], NDArray[np.floating]]
"""An uploaded clip, with its tokens -> what the cloud makes of it: tokens of all frames (F, n, D), or others
where it makes none."""


@dataclass(frozen=True)
class Example:
    """An uploaded sample, without its tokens, and what the teacher said to it."""

    round: int
    device: int
    sample: Sample
    teacher_answer: str


class Examples(deque[Example]):
    """The newest `EXAMPLES` samples that a report may show."""

    def __init__(self, kept: Iterable[Example] = ()) -> None:
        super().__init__(kept, maxlen=EXAMPLES)

    def keep(self, samples: Sequence[tuple[Batch, Sample]], answers: Sequence[str]) -> None:
        """The most uncertain samples of each device, devices in turn; `answers` are the teacher's."""
        devices = sorted({batch.device for batch, _ in samples})
        every = [
            Example(batch.round, batch.device, replace(sample, tokens=NO_TOKENS), answer)
            for (batch, sample), answer in zip(samples, answers, strict=True)
        ]
        for device in devices:
            own = [e for e in every if e.device == device]
            own.sort(key=lambda e: -e.sample.uncertainty)
            self.extend(own[: max(1, EXAMPLES // len(devices))])

    def written(self) -> str:
        """As JSON, whose floats come back exactly."""
        return json.dumps([_written(example) for example in self])

    @classmethod
    def read(cls, written: str) -> Examples:
        """The examples that `written()` gave."""
        return cls(map(_example, json.loads(written)))


def _written(example: Example) -> dict[str, Any]:
    sample = example.sample
    return {
        "round": example.round,
        "device": example.device,
        "teacher_answer": example.teacher_answer,
        "index": sample.index,
        "grid": list(sample.grid),
        "positions": sample.positions.tolist(),
        "question_ids": [int(i) for i in sample.question_ids],
        "answer_ids": [int(i) for i in sample.answer_ids],
        "uncertainty": float(sample.uncertainty),
    }


def _example(written: dict[str, Any]) -> Example:
    own = {name: written.pop(name) for name in ("round", "device", "teacher_answer")}
    positions, grid = np.array(written.pop("positions"), np.uint16), tuple(written.pop("grid"))
    return Example(sample=Sample(positions=positions, grid=grid, **written), **own)


def show(folder: RunFolder, playing: Any, shared: Shared, world: World) -> None:
    """Write into a run folder what a method wants to show of what devices sent.

    Args:
        folder: of the run.
        playing: the method. It may have `examples` (uploaded samples), `rebuilt` (see `Rebuilt`) and
            `summaries()` (device -> what it knows of the device, a vector).
        shared: of the student.
        world: of the run.
    """
    examples, rebuilt = getattr(playing, "examples", ()), getattr(playing, "rebuilt", None)
    folder.pictures(pictures(examples, shared, world, rebuilt))
    folder.summaries(summaries(getattr(playing, "summaries", dict)(), world))


def pictures(
    examples: Iterable[Example], shared: Shared, world: World, rebuilt: Rebuilt | None = None
) -> Iterator[dict[str, Any]]:
    """Rows for `RunFolder.pictures`; of a clip `image` are its frames and `errors` what is wrong in each."""
    for example in examples:
        stream = world.streams[example.device][example.round - 1]
        if example.sample.index >= len(stream):
            continue  # a device that does not follow the stream
        row = world.train.iloc[stream[example.sample.index]]
        n, rows, cols = example.sample.grid
        image, clip = world.pack.train_images[str(row["image_id"])], dict[str, Any]()
        if isinstance(image, tuple):
            image = [image[i] for i in spread(len(image), shared.frames)]
            truth = world.train_tokens[row["image_row"]].reshape(shared.frames, -1, shared.width)
            clip = {"errors": _errors(example.sample, truth, rebuilt)}
        yield {
            **clip,
            "image": image,
            "positions": example.sample.positions.tolist(),
            "side": cols if n == rows * cols and rows == cols else 0,
            "question": shared.text.decode(example.sample.question_ids),
            "device_answer": shared.text.decode(example.sample.answer_ids),
            "teacher_answer": example.teacher_answer,
            "round": example.round,
            "device": example.device,
            "n_tokens": n,
        }


def _errors(sample: Sample, truth: NDArray[np.floating], rebuilt: Rebuilt | None) -> list[float]:
    """Of each frame the norm of what is wrong over that of its tokens; [] where the cloud makes no frames."""
    whole = truth.astype(np.float32)
    if rebuilt is None:
        return []
    made = rebuilt(replace(sample, tokens=whole.reshape(-1, whole.shape[-1])[sample.positions]))
    if made.shape != whole.shape:
        return []
    off, size = (np.linalg.norm(of.reshape(len(of), -1), axis=1) for of in (made - whole, whole))
    return (off / np.maximum(size, 1e-9)).tolist()


def summaries(vectors: Mapping[int, NDArray[np.floating]], world: World) -> pd.DataFrame:
    """What is known of devices as points of a plane, by the two first principal components.

    Args:
        vectors: device -> a vector, all of one length.
        world: says whose device it is, and whether the models knew its user.
    """
    empty = pd.DataFrame(columns=list(SUMMARY_COLUMNS))
    if len(vectors) < 2:
        return empty.astype(SUMMARY_COLUMNS)
    devices = sorted(vectors)
    x = np.stack([np.asarray(vectors[d], np.float64) for d in devices])
    left, sizes, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    plane = np.zeros((len(x), 2))
    plane[:, : len(sizes[:2])] = (left * sizes)[:, :2]
    plane *= np.where(plane[np.abs(plane).argmax(0), [0, 1]] < 0, -1, 1)  # a component has no sign of its own
    rows = [world.train.iloc[world.streams[d][0]] for d in devices]
    said = {name: [_all(of, name) for of in rows] for name in ("user", "familiar")}
    made = pd.DataFrame({"device": devices, **said, "x": plane[:, 0], "y": plane[:, 1]})
    return made.astype(SUMMARY_COLUMNS)


def _all(rows: pd.DataFrame, column: str) -> str:
    """The values of a column, where there is one."""
    return " ".join(sorted(set(rows[column].astype(str)))) if column in rows else ""
