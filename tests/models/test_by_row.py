"""Rows that wear different adapters have the bits that they have where all wear one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cdc_flower.models import adapters, by_row, vlm
from cdc_flower.models.student import device_model
from cdc_flower.stages import PairConfig

FIELDS = ("ids", "entropy", "margin", "log_prob", "confidence")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def student(made, **more):
    """The device's model of a checkpoint, and four adapters for it."""
    model = device_model(made.shared, PairConfig(compression="nf4", lora_rank=2, **more))
    base, rng = adapters.read(model), np.random.default_rng(0)
    return model, [base + rng.normal(0, 0.1, len(base)).astype(np.float32) for _ in range(4)]


def answered(made, model, rows, length):
    """Answers of these samples, with the length and the rows that a run's batches have."""
    picked = [*rows, *[rows[-1]] * (4 - len(rows))]
    inputs = vlm.collate(
        made.shared.text,
        [made.tokens[i] for i in picked],
        [made.asked[i] for i in picked],
        length=length,
        grids=[made.grids[i] for i in picked],
    )
    found = vlm.answer(model, made.shared.text, inputs, 3, least=16)
    return [[np.array(getattr(found, f)[i]).tobytes() for f in FIELDS] for i in range(len(rows))]


def test_a_row_is_answered_as_if_all_wore_its_adapter(made):
    model, worn = student(made)
    assert by_row.possible(model)
    long = vlm.collate(made.shared.text, made.tokens, made.asked, grids=made.grids).ids.shape[1]
    rows, which = [0, 1, 1, 2, 0, 2], [0, 0, 1, 2, 3, 3]
    with by_row.wearing(model, worn, which):
        together = answered(made, model, rows, long)
    with by_row.wearing(model, worn[1:3], [0, 1]):
        pair = answered(made, model, rows[2:4], long)
    assert pair == together[2:4]
    for row, adapter, own in zip(rows, which, together, strict=True):
        adapters.write(model, worn[adapter])
        assert answered(made, model, [row], long) == [own]
    assert together[1] != together[2]


def test_a_model_with_parts_that_are_not_known_is_told_apart(make):
    made = make("pair")
    assert not by_row.possible(student(made, adapter="norms")[0])


def test_an_adapter_of_another_length_is_refused(make):
    model, worn = student(make("pair"))
    with (
        pytest.raises(ValueError, match="this model's adapter has"),
        by_row.wearing(model, [worn[0][1:]], [0]),
    ):
        pass
