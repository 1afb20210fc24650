"""How many bytes a pass of a model has alive at its peak, found without computing anything.

The pass runs on torch's `meta` device: every tensor has a shape and no values. A dispatch mode sees each
tensor that an operation makes, and when its storage is freed. So what is counted is what the class's own code
keeps, its order and its gradients, whatever the family; kernels' own buffers are not seen.

Layers of a language model are alike: a pass over two of them says what each further one adds.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import DynamicCache

from cdc_flower.models.attention import shown
from cdc_flower.models.families import logits, parts
from cdc_flower.models.family import bare

LAYERS = 2  # of the model that is run


class Live(TorchDispatchMode):
    """Counts the bytes of tensors made inside: `now`, and the most at one time, `peak`."""

    def __init__(self, there: Iterable[Tensor] = ()) -> None:
        """`there`: tensors that are not counted, nor views of them."""
        super().__init__()
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in there}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and enter what it made."""
        out = func(*args, **(kwargs or {}))
        self._enter(t for t in tree_leaves(out) if isinstance(t, Tensor))
        return out

    def _enter(self, made: Iterable[Tensor]) -> None:
        for tensor in made:
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self._known:
                self._known.add(key)
                self.now += size
                weakref.finalize(storage, self._leave, key, size)
        self.peak = max(self.peak, self.now)

    def _leave(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@dataclass(frozen=True)
class Work:
    """A pass over a batch.

    Attributes:
        rows: samples.
        length: ids of each sequence.
        predicted: positions whose logits are computed.
        train: with gradients, and back.
        attention: the map of every layer is read, one after the other.
        cache: keys and values are kept.
    """

    rows: int
    length: int
    predicted: int = 1
    train: bool = False
    attention: bool = False
    cache: bool = True


def peak(model: nn.Module, layers: int, work: Work) -> int:
    """Bytes alive at the peak of a pass of the language model, its weights apart.

    Args:
        model: on `meta`, plain or in peft, with `LAYERS` layers.
        layers: of the model that is meant.
        work: the pass.
    """
    base, language = bare(model), parts(model)[1]
    width = language.config.hidden_size
    rows, length = work.rows, work.length
    model.train(work.train)
    marks: list[int] = []
    live = Live([*model.parameters(), *model.buffers()])
    hooks = [layer.register_forward_hook(lambda *_: marks.append(live.now)) for layer in language.layers]
    try:
        reading = shown(model, lambda layer: None) if work.attention else nullcontext()
        with live, torch.set_grad_enabled(work.train), torch.device("meta"), reading:
            embeds = torch.empty(rows, length, width, requires_grad=work.train)
            mask = torch.empty(rows, 1, length, length)
            past = DynamicCache() if work.cache and not work.train else None
            out = language(
                inputs_embeds=embeds,
                attention_mask=mask,  # of four dimensions: taken as it is
                position_ids=torch.arange(length)[None].expand(rows, length),
                use_cache=past is not None,
                past_key_values=past,
            )
            found = logits(base, out.last_hidden_state[:, : work.predicted]).float().log_softmax(-1)
            if work.train:
                found.mean().backward()
    finally:
        for hook in hooks:
            hook.remove()
        model.zero_grad(set_to_none=True)
        model.eval()
    more = marks[1] - marks[0] if len(marks) > 1 else 0  # what a layer leaves behind
    return live.peak + (layers - LAYERS) * more
