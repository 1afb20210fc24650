"""Claims about what is shown of devices: frames of a clip and what is wrong in each, and devices as a map."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cdc_flower.results import SUMMARY_COLUMNS
from cdc_flower.uplink.sample import Sample
from strategies.pictures import Example, Examples, pictures, summaries

TOKENS = np.arange(1, 19, dtype=np.float16).reshape(6, 3)  # three frames of two


def _world(**columns) -> Any:
    train = pd.DataFrame({"image_id": ["a", "a"], "image_row": [0, 0], **columns})
    pack = SimpleNamespace(train_images={"a": tuple(bytes([i]) for i in range(5))})
    streams = [[np.array([0])], [np.array([1])], [np.array([0])]]
    return SimpleNamespace(train=train, train_tokens=[TOKENS], pack=pack, streams=streams)


def _shared() -> Any:
    return SimpleNamespace(frames=3, width=3, text=SimpleNamespace(decode=lambda ids: str(list(ids))))


def _example(**changed) -> Example:
    sample = Sample(0, (6, 6, 1), np.array([2, 3], np.uint16), [7], [], 0.0)
    return Example(1, 0, replace(sample, **changed), "")


def _held(sample: Sample) -> np.ndarray:
    """The one frame that came, in all frames."""
    return np.broadcast_to(sample.tokens.reshape(1, 2, 3), (3, 2, 3))


def test_of_a_clip_there_are_the_frames_that_are_read_and_the_error_of_each():
    (row,) = pictures([_example()], _shared(), _world(), _held)
    assert row["image"] == [b"\0", b"\2", b"\4"]
    assert row["errors"][1] == 0
    frames = TOKENS.astype(float).reshape(3, -1)
    assert row["errors"][0] == pytest.approx(
        np.linalg.norm(frames[1] - frames[0]) / np.linalg.norm(frames[0])
    )
    assert row["side"] == 0


def test_without_frames_that_were_made_there_are_no_errors():
    for rebuilt in (None, lambda sample: sample.tokens.reshape(1, 2, 3)):
        (row,) = pictures([_example()], _shared(), _world(), rebuilt)
        assert row["errors"] == []


def test_a_sample_that_is_not_on_the_stream_is_left_out():
    assert list(pictures([_example(index=5)], _shared(), _world())) == []


def test_examples_come_back_from_what_was_written():
    (back,) = Examples.read(Examples([_example()]).written())
    assert back.sample.positions.tolist() == [2, 3]
    assert back.sample.grid == (6, 6, 1)


def test_devices_are_points_of_a_plane_that_keeps_their_distances():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(3, 2)) @ rng.normal(size=(2, 5))  # three points of a plane in five dimensions
    world = _world(user=["u", "v"], familiar=["seen", "unseen"])
    found = summaries({2: plane[2], 0: plane[0], 1: plane[1]}, world)
    assert found["device"].tolist() == [0, 1, 2]
    assert found["user"].tolist() == ["u", "v", "u"]
    assert found["familiar"].tolist() == ["seen", "unseen", "seen"]
    flat = found[["x", "y"]].to_numpy()
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.linalg.norm(flat[a] - flat[b]) == pytest.approx(np.linalg.norm(plane[a] - plane[b]))
    again = summaries({d: -1.0 * plane[d] for d in range(3)}, world)
    np.testing.assert_allclose(np.abs(again[["x", "y"]]), np.abs(flat))


def test_fewer_than_two_devices_make_no_map_and_columns_may_lack():
    assert list(summaries({0: np.ones(2)}, _world()).columns) == list(SUMMARY_COLUMNS)
    alike = summaries({0: np.ones(1), 1: np.ones(1)}, _world())
    assert alike[["user", "x", "y"]].to_numpy().tolist() == [["", 0.0, 0.0]] * 2
