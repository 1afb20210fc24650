"""What a checkpoint weighs in memory, from its configuration and the headers of its files.

The class of the family is made on torch's `meta` device, where weights have shapes and no values, so names,
shapes and tied weights are those of the model that would be loaded, and no weight is read.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.initialization import no_init_weights

from cdc_flower.fleet.cost.roofline import COMPRESSIONS
from cdc_flower.models import adapters, placement
from cdc_flower.models.families import FAMILIES
from cdc_flower.models.family import Family
from cdc_flower.models.folders import PairError, folder_of, opened
from cdc_flower.models.room import FLOAT
from cdc_flower.models.shared import checked_config, text_of
from cdc_flower.plan.live import LAYERS

MOST_HEADER = 100 * 2**20  # of a safetensors file; the format's own bound


@dataclass(frozen=True)
class Parts:
    """Weights of a checkpoint by what becomes of them; counts, a tied one once.

    Attributes:
        tower: of the vision tower.
        compressed: of the maps that compression stores in fewer bits.
        rows: output rows of these.
        floats: all others.
        adapter: P, of the adapter.
        added: by the adapter to the model: new layers, and copies of what is trained whole.
    """

    tower: int
    compressed: int
    rows: int
    floats: int
    adapter: int
    added: int

    @property
    def language(self) -> int:
        """All but the tower."""
        return self.compressed + self.floats

    def stored(self, compression: str) -> float:
        """Bytes of a compressed model without tower and adapter."""
        how = COMPRESSIONS[compression]
        return how.weight * self.compressed + how.row * self.rows + FLOAT * self.floats


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint of which nothing but configuration and headers was read.

    Attributes:
        path: its folder or name.
        config: of transformers.
        files: bytes of its weights, in their files.
        adapter: kind of the adapter that is put on it; "" = none.
        rank: of that.
        attention: how the model is opened: "eager" shows its maps, "sdpa" makes none on a CPU.
        full: all weights of projector and language model are trained, instead of an adapter.
    """

    path: str
    config: Any
    files: int
    adapter: str
    rank: int
    attention: str
    full: bool = False

    @property
    def family(self) -> Family:
        """Its family."""
        return FAMILIES[self.config.model_type]

    @property
    def text(self) -> Any:
        """Configuration of its language model."""
        return self.config.text_config

    @property
    def eager(self) -> bool:
        """Whether its attention makes maps."""
        return self.attention == "eager"

    @property
    def layers(self) -> int:
        """Of its language model."""
        return self.config.text_config.num_hidden_layers

    @cached_property
    def parts(self) -> Parts:
        """What its weights are."""
        with torch.device("meta"), no_init_weights():
            model = self.family.model_class(self.config)
            model.tie_weights()  # `no_init_weights` leaves that out, too
        tower = _count(self.family.take_tower(model).parameters())
        maps = [
            module
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear)
            and not any(name.endswith(part) or re.match(part, name) for part in self.family.float_parts)
        ]
        compressed = _count(m.weight for m in maps)
        every = _count(model.parameters())
        rows, own = sum(m.out_features for m in maps), 0
        if self.adapter:
            with torch.device("meta"):
                own = adapters.layout(model := self._attached(model)).total
        return Parts(tower, compressed, rows, every - compressed, own, _count(model.parameters()) - every)

    @cached_property
    def short(self) -> nn.Module:
        """The model on `meta` with `LAYERS` layers and without a tower: `live.peak` runs it."""
        config = self.family.model_class.config_class.from_dict(self.config.to_dict())
        text = config.text_config
        text.num_hidden_layers = LAYERS
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:LAYERS]
        config._attn_implementation = self.attention
        with torch.device("meta"), no_init_weights():
            model = self.family.model_class(config)
            model.tie_weights()
            self.family.take_tower(model)
            model.float().requires_grad_(False).eval()
            if self.full:
                return model.requires_grad_(True)
            return adapters.train_merged(self._attached(model)) if self.adapter else model

    def _attached(self, model: nn.Module) -> nn.Module:
        return adapters.attach(model.requires_grad_(False), self.rank, self.adapter)


def _count(parameters: Iterable[torch.Tensor]) -> int:
    return sum(p.numel() for p in {id(p): p for p in parameters}.values())


def open_checkpoint(
    path: str, role: str, adapter: str = "", rank: int = 0, attention: str = "", full: bool = False
) -> Checkpoint:
    """A checkpoint by its configuration, its chat template and its files' headers, which name all tensors.

    Args:
        path: a folder or a name on the hub.
        role: "teacher" or "student", for messages.
        adapter, rank, attention, full: as in `Checkpoint`; attention "" = as a model of that role has it.

    Raises:
        PairError: no configuration of a known family, no whole safetensors file, a tensor or file that lacks,
            or, of a student, no chat template that can be used.
    """
    config = checked_config(path, role)
    attention = attention or ("sdpa" if role == "teacher" else placement.attention(config.text_config))
    folder = folder_of(path)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise PairError(f"{role} '{path}': no weights in safetensors; allowed: *.safetensors, not *.bin")
    size = sum(map(weights_of, files))
    opened(FAMILIES[config.model_type].model_class, str(folder), role, device_map="meta")  # no weight is read
    if role == "student":  # a teacher with its tower and words reads its prompts
        text_of(path, config, role)
    return Checkpoint(path, config, size, adapter, rank, attention, full)


def weights_of(file: Path) -> int:
    """Bytes of the tensors of a safetensors file, as its header says.

    Raises:
        PairError: no header, or a file shorter than it says.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, MOST_HEADER)))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        end = max(ends, default=0)
    except (OSError, struct.error, ValueError, KeyError, TypeError, IndexError, AttributeError) as err:
        raise PairError(f"'{file}': no safetensors header ({type(err).__name__}: {err})") from None
    if 8 + length + end > size:
        raise PairError(f"'{file}': {size:,} bytes, its header says {8 + length + end:,}; it is cut short")
    return end
