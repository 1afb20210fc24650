"""FLOPs against a count by hand and against what torch saw the model do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cdc_flower.models import flops, vlm
from cdc_flower.models.student import device_model, full_model, twin_model

B = 4


@pytest.fixture(scope="module")
def inputs(shared) -> vlm.Inputs:
    """Four pictures with questions and answers of one length: nothing is padding."""
    tokens = np.random.default_rng(0).normal(size=(B, shared.n_tokens, shared.width)).astype(np.float32)
    asked, told = shared.text.question_ids("where is the star?"), shared.text.answer_ids("south")
    return vlm.collate(shared.text, tokens, [asked] * B, [told] * B)


def length(shared, inputs: vlm.Inputs) -> int:
    return len(shared.text.prefix_ids) + shared.n_tokens + inputs.text_ids.shape[1]


def counted(shared, model, inputs: vlm.Inputs) -> int:
    """By torch's own counter, which does not see into fused attention: that is switched off."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        vlm.forward(model, shared.text, inputs)
    return counter.get_total_flops()


def ours(shared, model, inputs: vlm.Inputs) -> int:
    s = length(shared, inputs)
    return flops.forward(model, B * s, B * shared.n_tokens, s, B * inputs.answer_ids.shape[1])


def llama(config, s: int) -> int:
    """FLOPs of one picture's pass through the layers, from the architecture: four square matrices, three of
    the perceptron, two products of attention."""
    h, m = config.hidden_size, config.intermediate_size
    return config.num_hidden_layers * (2 * s * (4 * h * h + 3 * h * m) + 2 * 2 * s * s * h)


def test_the_teachers_pass_is_what_a_hand_count_says(shared, teacher, inputs):
    config = teacher.model.config.text_config
    s, n, a = length(shared, inputs), shared.n_tokens, inputs.answer_ids.shape[1]
    h = config.hidden_size
    projector = 2 * n * (shared.width * h + h * h)
    head = 2 * a * h * config.vocab_size
    assert ours(shared, teacher.model, inputs) == B * (llama(config, s) + projector + head)


def test_the_adapter_adds_two_thin_matrices_to_each_layer_and_the_head_and_nothing_else(
    shared, config, inputs
):
    bare, twin = full_model(shared, config.pair), twin_model(shared, config.pair)
    text, r = bare.config.text_config, config.pair.lora_rank
    h, m = text.hidden_size, text.intermediate_size
    thin = text.num_hidden_layers * r * (4 * (h + h) + 3 * (h + m))
    added = ours(shared, twin, inputs) - ours(shared, bare, inputs)
    head = inputs.answer_ids.shape[1] * r * (h + text.vocab_size)
    assert added == 2 * B * (length(shared, inputs) * thin + head)


def test_torch_counts_the_same_on_a_real_pass(shared, teacher, config, inputs):
    for model in (teacher.model, twin_model(shared, config.pair), full_model(shared, config.pair)):
        assert ours(shared, model, inputs) == pytest.approx(counted(shared, model, inputs), rel=0.05)


def test_a_compressed_student_is_charged_what_its_float_twin_is(shared, config, inputs):
    device, twin = device_model(shared, config.pair), twin_model(shared, config.pair)
    assert ours(shared, device, inputs) == ours(shared, twin, inputs)


def test_fewer_tokens_cost_less_in_every_part(shared, teacher):
    whole = flops.forward(teacher.model, 100, 64, 100, 2)
    assert flops.forward(teacher.model, 50, 64, 100, 2) < whole
    assert flops.forward(teacher.model, 100, 32, 100, 2) < whole
    assert flops.forward(teacher.model, 100, 64, 50, 2) < whole
    assert flops.forward(teacher.model, 100, 64, 100, 1) < whole
    assert flops.forward(teacher.model, 0) == 0
