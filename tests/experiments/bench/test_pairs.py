from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cdc_flower.models.shared import load_shared
from cdc_flower.models.teacher import load_teacher
from cdc_flower.stages import PairConfig
from experiments.bench import pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return pairs.write(pairs.QUICK, tmp_path_factory.mktemp("pair"), "100KB")


def test_a_pair_is_laid_out_as_on_the_hub_and_shares_tokens_and_words(folder):
    for role in ("student", "teacher"):
        shards = sorted((folder / role).glob("model-*-of-*.safetensors"))
        assert len(shards) > 1
        assert (folder / role / "model.safetensors.index.json").is_file()
        tensors = {name: t for shard in shards for name, t in load_file(shard).items()}
        assert {t.dtype for t in tensors.values()} == {torch.bfloat16}
        assert any(name.startswith("language_model.model.layers.0.self_attn.q_proj") for name in tensors)
        assert "language_model.lm_head.weight" not in tensors  # tied
    config = PairConfig(teacher=str(folder / "teacher"), student=str(folder / "student"))
    shared = load_shared(config, "scenes")
    assert (shared.vocab, shared.n_tokens) == (pairs.QUICK.vocab, 64)
    assert shared.text.tokenizer.vocab_size == pairs.QUICK.vocab
    teacher = load_teacher(config, shared, "scenes")
    assert teacher.own is None
    assert teacher.words


def test_real_shapes_are_those_of_the_models_they_name():
    half = pairs.REAL.student
    maps = 2 * half.hidden * half.hidden * (1 + half.keys / half.heads) + 3 * half.hidden * half.intermediate
    assert 0.48e9 < half.layers * maps + pairs.REAL.vocab * half.hidden < 0.5e9
    assert (pairs.REAL.tower.side // pairs.REAL.tower.patch) ** 2 == 576
