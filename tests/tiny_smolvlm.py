"""A SmolVLM checkpoint of a few thousand random weights, in the layout of the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlamaConfig,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""As HuggingFaceTB/SmolVLM2-256M-Video-Instruct has it."""
SPECIAL = [
    "<unk>",
    "<|im_start|>",
    "<end_of_utterance>",
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    *(f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)),
]
TILE, PATCH, FACTOR = 16, 4, 2  # pixels of a tile and of a patch, patches of a side that make a token


def tokenizer(words: str) -> PreTrainedTokenizerFast:
    """One id for each word of `words`, and those of the prompt."""
    vocab = {w: i for i, w in enumerate([*SPECIAL, *dict.fromkeys(f"User : Assistant ? . {words}".split())])}
    made = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_start|>",
        unk_token="<unk>",
        additional_special_tokens=SPECIAL[3:],
        chat_template=TEMPLATE,
    )


def write(
    folder: Path,
    words: str,
    hidden: int = 32,
    layers: int = 2,
    seed: int = 0,
    tower: dict[str, torch.Tensor] | None = None,
    idefics3: bool = False,
) -> Path:
    """Write a checkpoint; its folder.

    Args:
        words: of the vocabulary.
        tower: weights of the vision tower; None = random.
        idefics3: as the first version of SmolVLM, whose classes are those of Idefics3.
    """
    made = tokenizer(words)
    config: Any = (Idefics3Config if idefics3 else SmolVLMConfig)(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": TILE,
            "patch_size": PATCH,
        },
        text_config=LlamaConfig(
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=len(made),
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=1,
        ),
        scale_factor=FACTOR,
        image_token_id=SPECIAL.index("<image>"),
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model: Any = (Idefics3ForConditionalGeneration if idefics3 else SmolVLMForConditionalGeneration)(config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
        if tower is not None:
            model.model.vision_model.load_state_dict(tower)
    model.half().save_pretrained(folder)
    GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=1).save_pretrained(folder)
    made.save_pretrained(folder)
    processor = Idefics3ImageProcessorPil if idefics3 else SmolVLMImageProcessorPil
    processor(
        size={"longest_edge": 2 * TILE},
        max_image_size={"longest_edge": TILE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(folder)
    return folder
