"""The parts of a frame add up to it, and each grows with what it is for."""

import numpy as np
import pytest

from cdc_flower.downlink import update
from cdc_flower.uplink import token_batch
from cdc_flower.uplink.sample import COUNT, Batch, Sample
from cdc_flower.wire.frame import FrameError, Kind
from cdc_flower.wire.parts import PARTS, parts


def frame(kept=8, question=4, bits=4):
    """The frame of three samples."""
    rng = np.random.default_rng(0)
    samples = tuple(
        Sample(
            *(i, (64, 8, 8), np.sort(rng.permutation(64)[:kept]).astype(np.uint16)),
            *(rng.integers(0, 2**20, question).tolist(), [1], 0.5),
            tokens=rng.normal(size=(kept, 32)).astype(np.float32),
        )
        for i in range(3)
    )
    return token_batch.encode(Batch(0, 1, 0, samples), 32, bits)


def test_the_names_are_as_many_as_the_sections():
    assert len(PARTS[Kind.TOKEN_BATCH]) == token_batch.SECTIONS + 1  # the digest of a transform
    assert len(PARTS[Kind.PICTURE_BATCH]) == 1 + COUNT + 2


@pytest.mark.parametrize(
    ("part", "more"), [("values", {"bits": 8}), ("positions", {"kept": 16}), ("questions", {"question": 40})]
)
def test_a_part_grows_with_what_it_is_for(part, more):
    small, large = frame(), frame(**more)
    assert sum(parts(small).values()) == len(small)
    assert parts(large)[part] > parts(small)[part]
    same = {"head", "grids", "answers", "uncertainty"} & parts(small).keys()
    assert {parts(large)[name] - parts(small)[name] for name in same} == {0}


def test_changes_of_a_chain_are_one_part():
    chain = update.chain_frame([b"one", b"three"], 0, bytes(8), bytes(8))
    assert parts(chain)["changes"] == len(b"onethree")


@pytest.mark.parametrize("data", [b"", b"CDCF\x02\x09", frame()[:-1]])
def test_what_is_no_whole_frame_is_refused(data):
    with pytest.raises(FrameError):
        parts(data)
