"""FLOPs against a count by hand and against what torch saw the model do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cdc_flower.models import flops, vlm
from cdc_flower.models.compress import device_model, full_model, twin_model

B = 4


@pytest.fixture(scope="module")
def inputs(pair) -> vlm.Inputs:
    """Four pictures with questions and answers of one length: nothing is padding."""
    tokens = np.random.default_rng(0).normal(size=(B, pair.n_tokens, pair.width)).astype(np.float32)
    asked, told = pair.text.question_ids("where is the star?"), pair.text.answer_ids("south")
    return vlm.collate(pair.text, tokens, [asked] * B, [told] * B)


def length(pair, inputs: vlm.Inputs) -> int:
    return len(pair.text.prefix_ids) + pair.n_tokens + inputs.text_ids.shape[1]


def counted(pair, model, inputs: vlm.Inputs) -> int:
    """By torch's own counter, which does not see into fused attention: that is switched off."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        vlm.forward(model, pair.text, inputs)
    return counter.get_total_flops()


def ours(pair, model, inputs: vlm.Inputs) -> int:
    s = length(pair, inputs)
    return flops.forward(model, B * s, B * pair.n_tokens, s, B * inputs.answer_ids.shape[1])


def llama(config, s: int) -> int:
    """FLOPs of one picture's pass through the layers, from the architecture: four square matrices, three of
    the perceptron, two products of attention."""
    h, m = config.hidden_size, config.intermediate_size
    return config.num_hidden_layers * (2 * s * (4 * h * h + 3 * h * m) + 2 * 2 * s * s * h)


def test_the_teachers_pass_is_what_a_hand_count_says(pair, inputs):
    config = pair.teacher.config.text_config
    s, n, a = length(pair, inputs), pair.n_tokens, inputs.answer_ids.shape[1]
    h = config.hidden_size
    projector = 2 * n * (pair.width * h + h * h)
    head = 2 * a * h * config.vocab_size
    assert ours(pair, pair.teacher, inputs) == B * (llama(config, s) + projector + head)


def test_the_adapter_adds_two_thin_matrices_to_each_layer_and_the_head_and_nothing_else(pair, config, inputs):
    bare, twin = full_model(pair, config.pair), twin_model(pair, config.pair)
    text, r = bare.config.text_config, config.pair.lora_rank
    h, m = text.hidden_size, text.intermediate_size
    thin = text.num_hidden_layers * r * (4 * (h + h) + 3 * (h + m))
    added = ours(pair, twin, inputs) - ours(pair, bare, inputs)
    head = inputs.answer_ids.shape[1] * r * (h + text.vocab_size)
    assert added == 2 * B * (length(pair, inputs) * thin + head)


def test_torch_counts_the_same_on_a_real_pass(pair, config, inputs):
    for model in (pair.teacher, twin_model(pair, config.pair), full_model(pair, config.pair)):
        assert ours(pair, model, inputs) == pytest.approx(counted(pair, model, inputs), rel=0.05)


def test_a_compressed_student_is_charged_what_its_float_twin_is(pair, config, inputs):
    device, twin = device_model(pair, config.pair), twin_model(pair, config.pair)
    assert ours(pair, device, inputs) == ours(pair, twin, inputs)


def test_fewer_tokens_cost_less_in_every_part(pair):
    whole = flops.forward(pair.teacher, 100, 64, 100, 2)
    assert flops.forward(pair.teacher, 50, 64, 100, 2) < whole
    assert flops.forward(pair.teacher, 100, 32, 100, 2) < whole
    assert flops.forward(pair.teacher, 100, 64, 50, 2) < whole
    assert flops.forward(pair.teacher, 100, 64, 100, 1) < whole
    assert flops.forward(pair.teacher, 0) == 0
