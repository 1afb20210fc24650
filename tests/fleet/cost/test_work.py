"""FLOPs against what torch saw the model do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cdc_flower.fleet.cost import roofline
from cdc_flower.fleet.cost.work import flops
from cdc_flower.models import vlm
from cdc_flower.models.student import full_model, twin_model
from cdc_flower.wire.counts import Counts

B = 4


@pytest.mark.parametrize("rank", [0, 4])
def test_torch_counts_the_same_on_a_real_pass(shared, config, rank):
    """Four pictures with questions and answers of one length: nothing is padding."""
    model = twin_model(shared, config.pair) if rank else full_model(shared, config.pair)
    tokens = np.random.default_rng(0).normal(size=(B, shared.n_tokens, shared.width)).astype(np.float32)
    asked, told = shared.text.question_ids("where is the star?"), shared.text.answer_ids("south")
    inputs = vlm.collate(shared.text, tokens, [asked] * B, [told] * B)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        vlm.forward(model, inputs)
    length = inputs.ids.shape[1]
    counts = Counts(B, B * length, B * shared.n_tokens, B * (len(told) + 1), trained=2 * B * length)
    forward, back = flops(roofline.shapes(shared.student_config(), rank), counts)
    assert forward == pytest.approx(counter.get_total_flops(), rel=0.05)
    assert back == pytest.approx(2 * forward)


def test_more_of_anything_costs_more_and_nothing_costs_nothing(shared):
    shapes = roofline.shapes(shared.student_config(), 4)
    assert flops(shapes, Counts()) == (0, 0)
    less = flops(shapes, Counts(10, 1000, 640, 20))[0]
    for more in (Counts(5, 1000, 640, 20), Counts(10, 1100, 640, 20), Counts(10, 1000, 700, 20)):
        assert flops(shapes, more)[0] > less
    assert flops(shapes, Counts(10, 1000, 640, 30))[0] > less


def test_what_a_ledger_cannot_hold_is_cut(shared):
    shapes = roofline.shapes(shared.student_config(), 4)
    assert flops(shapes, Counts(1, 2**53, trained=2**53)) == (2**62, 2**62)
