"""The families of models that are known.

A further one is a file beside `llava.py` and a line here; or, in another package, an entry point of the group
`cdc_flower.families`, a subclass of `Family` under its `model_type`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from cdc_flower import plugins
from cdc_flower.models.family import Family, bare
from cdc_flower.models.gemma3 import Gemma3
from cdc_flower.models.internvl import InternVL
from cdc_flower.models.llava import Llava
from cdc_flower.models.llava_onevision import LlavaOnevision
from cdc_flower.models.paligemma import PaliGemma
from cdc_flower.models.qwen2_5_vl import Qwen25VL
from cdc_flower.models.qwen3_vl import Qwen3VL
from cdc_flower.models.smolvlm import Idefics3, SmolVLM

GROUP = "cdc_flower.families"

_OWN = (
    Llava(),
    SmolVLM(),
    Idefics3(),
    Qwen25VL(),
    Gemma3(),
    InternVL(),
    PaliGemma(),
    Qwen3VL(),
    LlavaOnevision(),
)
FAMILIES: dict[str, Family] = {family.model_type: family for family in _OWN}
FAMILIES |= {name: plugins.load(GROUP, name)() for name in plugins.names(GROUP)}
"""`model_type` of a checkpoint -> its family."""


def family_of(model: nn.Module) -> Family:
    """The family of a loaded model, plain or wrapped by peft."""
    return FAMILIES[bare(model).config.model_type]


def parts(model: nn.Module) -> tuple[nn.Module, Any, nn.Module]:
    """(projector, language model, lm_head) of a model, plain or wrapped by peft."""
    family, base = family_of(model), bare(model)
    return (
        base.model.get_submodule(family.projector),
        base.model.get_submodule(family.language),
        base.lm_head,
    )


def logits(model: nn.Module, hidden: Tensor) -> Tensor:
    """Logits (..., V) of hidden states (..., H) of a model, plain or wrapped by peft."""
    return family_of(model).logits(bare(model), hidden)
