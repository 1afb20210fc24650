"""The families of models that are known.

A further one is a file beside `llava.py` and a line here; or, in another package, an entry point of the group
`cdc_flower.families`, a subclass of `Family` under its `model_type`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from cdc_flower import plugins
from cdc_flower.models.family import Family, bare
from cdc_flower.models.placement import computing

GROUP = "cdc_flower.families"

_OWN = {
    "llava": "llava:Llava",
    "smolvlm": "smolvlm:SmolVLM",
    "idefics3": "smolvlm:Idefics3",
    "qwen2_5_vl": "qwen2_5_vl:Qwen25VL",
    "gemma3": "gemma3:Gemma3",
    "internvl": "internvl:InternVL",
    "paligemma": "paligemma:PaliGemma",
    "qwen3_vl": "qwen3_vl:Qwen3VL",
    "llava_onevision": "llava_onevision:LlavaOnevision",
}
"""`model_type` -> module here and class in it."""


class Families(Mapping[str, Family]):
    """Families by `model_type`. One is imported when it is first asked for: a device needs one, and each
    takes transformers' classes of its own with it.
    """

    def __init__(self) -> None:
        self._names = (*_OWN, *(name for name in plugins.names(GROUP) if name not in _OWN))
        self._made: dict[str, Family] = {}

    def __getitem__(self, model_type: str) -> Family:
        if model_type not in self._made:
            self._made[model_type] = _class_of(model_type)()
        return self._made[model_type]

    def __contains__(self, model_type: object) -> bool:
        return model_type in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _class_of(model_type: str) -> type[Family]:
    """The class of a family; another package's goes before one of the same name here.

    Raises:
        KeyError: no such family.
    """
    if model_type in plugins.names(GROUP):
        return plugins.load(GROUP, model_type)
    module, name = _OWN[model_type].split(":")
    return getattr(import_module(f"cdc_flower.models.{module}"), name)


FAMILIES = Families()
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
    with computing():
        return family_of(model).logits(bare(model), hidden)
