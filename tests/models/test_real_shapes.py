"""The laws of families at widths, vocabularies and tokens of real checkpoints, with two layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cdc_flower.models.families import FAMILIES
from cdc_flower.models.shared import load_shared
from cdc_flower.stages import PairConfig
from tests import tiny
from tests.models import test_families as laws
from tests.models.conftest import QUESTIONS, WORDS, Made

pytestmark = pytest.mark.slow

SMOLVLM = tiny.Size(  # SmolVLM2-500M: 64 tokens a tile
    hidden=960,
    heads=15,
    keys=5,
    intermediate=2560,
    vocab=49_280,
    vision={
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "image_size": 512,
        "patch_size": 16,
    },
    processor={"size": {"longest_edge": 1024}, "max_image_size": {"longest_edge": 512}},
    more={"scale_factor": 4},
)
SHAPES = {"smolvlm": SMOLVLM, "idefics3": SMOLVLM}
LAWS = (
    laws.test_tokens_have_the_shape_that_the_layout_says,
    laws.test_logits_are_those_of_the_class_from_pixels,
    laws.test_answers_are_those_of_generate,
    laws.test_a_kept_subset_is_the_full_sequence_with_the_others_masked,
    laws.test_the_adapter_is_nowhere_in_the_tower_and_changes_nothing_at_first,
)


@pytest.fixture(scope="module", params=sorted(SHAPES))
def real(request, tmp_path_factory) -> Made:
    """A checkpoint of real shapes."""
    name, folder = request.param, tmp_path_factory.mktemp("real")
    path = str(tiny.write(name, folder / name, WORDS, SHAPES[name]))
    shared = load_shared(PairConfig(teacher="nowhere", student=path), "x")
    model = FAMILIES[shared.family].model_class.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager"
    )
    rng = np.random.default_rng(1)
    images = [
        Image.fromarray(rng.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in ((480, 640), (300, 100))
    ]
    tokens, grids = zip(*shared.encode(images), strict=True)
    asked = [shared.text.question_ids(q) for q in QUESTIONS[:2]]
    return Made(shared, model.eval(), images, list(tokens), list(grids), asked)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_law_holds_at_real_shapes(law, real):
    with torch.no_grad():
        law(real)
