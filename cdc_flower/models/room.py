"""How much passes through a language model at once, so that what a pass has alive stays in a budget.

From shapes alone, and nearly: `plan.live` traces the same passes, and a test holds one against the other.
Batches that do not fit are cut; a step of training that does not fit with one sequence computes its layers
again on the way back instead of keeping them (gradient checkpointing).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from cdc_flower.models.families import parts
from cdc_flower.models.family import bare
from cdc_flower.models.placement import Place, here

FLOAT, HALF = 4, 2  # bytes
IDS = 512  # with fewer in a pass of training it is worth computing layers twice to have more


@dataclass(frozen=True)
class Pass:
    """A pass over sequences.

    Attributes:
        length: ids of each.
        predicted: positions of each whose logits are computed.
        train: with gradients, and back.
        again: layers are computed a second time on the way back.
    """

    length: int
    predicted: int = 1
    train: bool = False
    again: bool = False


def alive(text: Any, one: Pass, size: int, eager: bool) -> int:
    """Bytes that one sequence has alive at the peak.

    Args:
        text: configuration of the language model.
        size: bytes of a value.
        eager: attention makes maps.
    """
    wide, inner, layers = text.hidden_size, text.intermediate_size, text.num_hidden_layers
    heads = text.num_attention_heads
    head = getattr(text, "head_dim", None) or wide // heads
    values = 2 * (getattr(text, "num_key_value_heads", None) or heads) * head
    maps = heads * one.length if eager else 0
    whole = 8 * wide + heads * head + values + 4 * inner + maps  # of a layer, kept to go back
    if not one.train:
        an_id = layers * values + 6 * wide + heads * head + 5 * max(maps, 2 * inner)
    elif one.again:
        an_id = layers * wide + 2 * whole
    else:
        an_id = layers * whole
    return size * one.length * an_id + FLOAT * one.predicted * text.vocab_size * (5 if one.train else 3)


def rows(text: Any, one: Pass, place: Place | None = None, eager: bool | None = None) -> int:
    """How many sequences pass at once, at least one.

    Args:
        text: configuration of the language model.
        place: where; None = where this process computes.
        eager: as in `alive`; None = as the configuration says.
    """
    place = place or here()
    return max(1, place.budget // _bytes(text, one, place, eager))


def together(config: Any, length: int, most: int, place: Place | None = None) -> int:
    """How many of `most` sequences of so many ids are answered at once, whether attention is read or not.

    Args:
        config: of the whole model.
        length: ids of a sequence.
        most: sequences.
        place: as in `rows`.
    """
    return min(most, rows(config.get_text_config(), Pass(length), place, eager=True))


def again(text: Any, one: Pass, place: Place | None = None, eager: bool | None = None) -> bool:
    """Whether a step of training computes layers a second time: otherwise fewer than `IDS` ids fit."""
    place = place or here()
    return place.budget < max(1, IDS // one.length) * _bytes(text, one, place, eager)


def _bytes(text: Any, one: Pass, place: Place, eager: bool | None) -> int:
    maps = text._attn_implementation == "eager" if eager is None else eager
    return alive(text, one, HALF if place.half else FLOAT, maps)


def frugal(model: nn.Module, one: Pass) -> Pass:
    """A pass of training as it is made; lets the model compute its layers again where it must."""
    if not again(text_of(model), one):
        return one
    bare(model).activation_checkpointing_enable({"use_reentrant": False})
    return replace(one, again=True)


def text_of(model: nn.Module) -> Any:
    """Configuration of a model's language model."""
    return parts(model)[1].config
