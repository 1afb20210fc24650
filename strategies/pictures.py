"""Uploaded samples as something to look at: the server knows (device, round, place), the experimenter the
picture.

In a deployment this join is impossible, because pictures stay on the devices; here it is what a report shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cdc_flower.data.world import World
from cdc_flower.models.shared import Shared
from cdc_flower.uplink.sample import Sample


@dataclass(frozen=True)
class Example:
    """An uploaded sample, without its tokens, and what the teacher said to it."""

    round: int
    device: int
    sample: Sample
    teacher_answer: str


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
