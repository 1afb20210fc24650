"""Pictures as a tower reads them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from cdc_flower.models import vlm


def test_pictures_as_read_are_a_square_of_the_tower_and_give_the_same_tokens(shared, teacher):
    ramp = np.linspace(0, 255, 300)
    down, along = np.broadcast_arrays(ramp[:200, None], ramp)
    large = np.stack([down, along, (down + along) / 2], -1)
    images = [Image.fromarray(large.astype(np.uint8)), Image.new("L", (7, 9), 120)]
    read = vlm.as_read(shared.processor, images)
    assert read.shape == (2, shared.side, shared.side, 3)
    assert read.dtype == np.uint8
    assert set(read[1].ravel().tolist()) == {120}
    again = vlm.as_read(shared.processor, [Image.fromarray(p) for p in read])
    np.testing.assert_array_equal(again, read)
    direct, by_read = (
        np.stack([t for t, _ in shared.encode(some)]).astype(float)
        for some in (images, [Image.fromarray(p) for p in read])
    )
    np.testing.assert_allclose(by_read, direct, atol=2e-2)


def test_grey_is_what_normalisation_makes_nothing_of(shared):
    canvas = np.broadcast_to(vlm.grey(shared.processor), (shared.side, shared.side, 3)).astype(np.uint8)
    made = shared.processor(images=[Image.fromarray(canvas)], return_tensors="np")["pixel_values"]
    assert np.abs(made).max() < 1 / 127
    assert vlm.grey(object()).tolist() == [128, 128, 128]
