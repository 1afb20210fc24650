"""Uploaded samples as something to look at: the server knows (device, round, place), the experimenter the
picture.

In a deployment this join is impossible, because pictures stay on the devices; here it is what a report shows.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cdc_flower.data.world import World
from cdc_flower.models.shared import Shared
from cdc_flower.uplink.sample import NO_TOKENS, Batch, Sample

EXAMPLES = 12  # uploaded samples kept to look at


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


def pictures(examples: Iterable[Example], shared: Shared, world: World) -> Iterator[dict[str, Any]]:
    """Rows for `RunFolder.pictures`."""
    for example in examples:
        stream = world.streams[example.device][example.round - 1]
        if example.sample.index >= len(stream):
            continue  # a device that does not follow the stream
        row = world.train.iloc[stream[example.sample.index]]
        n, rows, cols = example.sample.grid
        yield {
            "image": world.pack.train_images[str(row["image_id"])],
            "positions": example.sample.positions.tolist(),
            "side": cols if n == rows * cols and rows == cols else 0,
            "question": shared.text.decode(example.sample.question_ids),
            "device_answer": shared.text.decode(example.sample.answer_ids),
            "teacher_answer": example.teacher_answer,
            "round": example.round,
            "device": example.device,
            "n_tokens": n,
        }
