"""What the builders of tiny checkpoints have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Size:
    """Of the language model, and where shapes are real ones what else they say.

    Attributes:
        vocab: rows of the embedding, beyond the tokenizer's words; 0 = as many as there are words.
        vision, processor, more: of `vision_config`, of the picture processor, of the configuration.
    """

    hidden: int = 32
    layers: int = 2
    heads: int = 4
    keys: int = 2
    intermediate: int = 0
    vocab: int = 0
    vision: dict[str, Any] = field(default_factory=dict)
    processor: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tiny:
    """What a checkpoint is made of."""

    model_class: Any
    config: Any
    tokenizer: PreTrainedTokenizerFast
    processor: dict[str, Any]  # preprocessor_config.json
    ends: tuple[str, ...] = ()  # words of eos_token_id in generation_config.json; none = the tokenizer's
    nested: bool = False  # the processor stands in processor_config.json, as newer checkpoints have it
    as_on_hub: Callable[[dict[str, Any]], dict[str, Any]] = lambda config: (
        config
    )  # config.json as written there


def tokenizer(
    words: str, special: Sequence[str], template: str, end: str, begin: str | None = None
) -> PreTrainedTokenizerFast:
    """One id for each special word, line end and each of `words`, in this order; "<unk>" is 0."""
    vocab = {
        w: i for i, w in enumerate(dict.fromkeys(["<unk>", *special, "?", ".", ":", "\n", *words.split()]))
    }
    made = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(" ", "removed"),
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Punctuation(),
        ]
    )
    found = PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=begin,
        eos_token=end,
        pad_token=end,
        unk_token="<unk>",
        additional_special_tokens=list(special),
    )
    found.chat_template = template or None
    return found


def text(of: PreTrainedTokenizerFast, size: Size, **more: Any) -> dict[str, Any]:
    """`text_config` of most families: two heads of keys for four of queries."""
    return {
        "hidden_size": size.hidden,
        "intermediate_size": size.intermediate or 2 * size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.keys,
        "vocab_size": size.vocab or len(of),
        "bos_token_id": of.bos_token_id,
        "eos_token_id": of.eos_token_id,
        "pad_token_id": of.pad_token_id,
        **more,
    }


VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
"""`vision_config` of most families."""
HALVES: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
