"""What a family of vision-language models has to say of itself; everything else here is the same for all.

A *token* is a row at the tap: after the last step of the vision side without weights, before the first
weights whose size depends on the language model. Models of one family with equal towers share their tokens,
whatever their size, and one token is one place in the language model's sequence. Projected tokens go into the
class's own forward pass as `mm_encoder_outputs`; how they are scattered, and what is done to them there,
stays its business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from cdc_flower.data.features import Grid

if TYPE_CHECKING:
    from cdc_flower.models.inputs import Inputs


class Family(ABC):
    """One family: the names of its parts and the steps in which families differ.

    Attributes:
        model_type: of its `config.json`.
        model_class: of transformers.
        tower: name of the vision tower in `model.model`; it may have further steps without weights.
        projector: name in `model.model` of what maps a token to the language model's width.
        language: name of the language model in `model.model`.
        tap: which values a token is, in words.
        checkpoints: on the hub, examples.
        notes: what does not work yet, in words.
        template: a chat template, where checkpoints of the family have none.
        varies: whether pictures differ in their number of tokens.
        raster: whether a token is a patch of one square, as the picture units need it.
        several: whether a prompt may have several pictures, the frames of a clip: each is in it as one alone
            is, and `positions` and `slots` are right for all of them.
        pictures_first: whether what a picture becomes does not depend on what comes after it, and a class can
            go on from there while it is trained (`models.several`).
    """

    model_type: ClassVar[str]
    model_class: ClassVar[Any]
    tower: ClassVar[str]
    projector: ClassVar[str]
    language: ClassVar[str]
    tap: ClassVar[str]
    checkpoints: ClassVar[str] = ""
    notes: ClassVar[str] = ""
    template: ClassVar[str] = ""
    varies: ClassVar[bool] = False
    raster: ClassVar[bool] = False
    several: ClassVar[bool] = False
    pictures_first: ClassVar[bool] = False

    def refusal(self, config: Any) -> str:
        """Why a checkpoint of this family cannot be used, in words; "" where it can."""
        return ""

    @abstractmethod
    def width(self, config: Any) -> int:
        """D, values of a token."""

    @abstractmethod
    def tower_key(self, config: Any) -> str:
        """What of the configuration changes the tokens of a tower with equal weights."""

    @abstractmethod
    def grid(self, config: Any) -> Grid | None:
        """The grid of every picture; None where it depends on the picture."""

    def smallest(self, config: Any) -> Grid:
        """The grid of the smallest picture."""
        grid = self.grid(config)
        assert grid is not None
        return grid

    def fits(self, config: Any, processor: Any, grid: Grid) -> bool:
        """Whether a picture can have such a grid."""
        return grid == self.grid(config)

    def layout(self, config: Any, processor: Any, size: tuple[int, int]) -> Grid:
        """The grid of a picture of (height, width) pixels; here the same for every picture."""
        return self.smallest(config)

    @abstractmethod
    def encode(
        self, tower: nn.Module, config: Any, processor: Any, images: Sequence[Image.Image]
    ) -> list[tuple[np.ndarray, Grid]]:
        """Tokens (n, D) float16 of each picture, and how they lie."""

    def pixels(self, config: Any) -> int:
        """Of a side of a token, in a picture that is sent (`uplink.unit` jpeg or patches)."""
        return config.vision_config.patch_size

    def take_tower(self, model: Any) -> nn.Module:
        """Take the tower out of a loaded model; the projector stays, wherever it is."""
        tower = model.model.get_submodule(self.tower)
        setattr(model.model, self.tower, nn.Identity())
        return tower

    def give_tower(self, model: Any, tower: nn.Module) -> None:
        """Give a tower that was taken out of a model to another one, whose own was taken."""
        setattr(model.model, self.tower, tower)

    def project(self, model: Any, tokens: Tensor) -> Tensor:
        """Tokens (M, D) in the language model's width: (M, H); behind that, what the family adds later."""
        return model.model.get_submodule(self.projector)(tokens)

    def encoded(self, model: Any, rows: Tensor) -> BaseModelOutputWithPooling:
        """Rows, as `project` gives them, for all ids of pictures in a batch, as the class reads them."""
        placed: Any = [rows]  # as transformers has it, whatever its type says
        return BaseModelOutputWithPooling(pooler_output=placed)

    def mark(self, config: Any) -> int:
        """Id of the word that a chat template writes for a picture."""
        return config.image_token_id

    def image_words(self, config: Any, grid: Grid, word: Callable[[int], str]) -> str:
        """What the prompt has in the place of that word: the word for a token, `grid.n` times in all.

        Args:
            word: that has an id.
        """
        return word(config.image_token_id) * grid.n

    def slots(self, slots: np.ndarray, grid: Grid) -> np.ndarray:
        """Which of the places `slots` of that word in the prompt are tokens, (n,); others are a `filler`."""
        return slots

    def filler(self, model: Any) -> Tensor | None:
        """What stands, (H,), in places of a picture that are no token."""
        return None

    def positions(self, ids: np.ndarray, slots: np.ndarray, grid: Grid) -> np.ndarray:
        """Position ids (S,) or (S, axes) of the complete sequence `ids` (S,), whose picture is at `slots`;
        `grid` is that of all frames of a clip.

        Those of the tokens present are taken. Text after the picture has one position on all axes.
        """
        return np.arange(len(ids))

    def arguments(self, inputs: Inputs) -> dict[str, Tensor]:
        """Further arguments of the pass over picture, question and answer."""
        return {}

    def logits(self, model: Any, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., H) after the final norm."""
        return model.lm_head(hidden)

    def cost_config(self, config: Any) -> dict[str, Any]:
        """The configuration with the sizes that costs are reckoned from under the names they have in LLaVA's.

        Costs are those of a picture that is one square.
        """
        return config.to_dict()

    @property
    def float_parts(self) -> list[str]:
        """Patterns of modules that compression leaves in float."""
        return [rf".*{self.tower}.*", rf".*{self.projector}.*", "lm_head"]

    @property
    def layer_maps(self) -> str:
        """A pattern of the linear maps of the language model's layers."""
        return rf".*{self.language}\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"

    @property
    def lora_targets(self) -> str:
        """A pattern of the modules that get LoRA; none of them is in the tower."""
        return rf"{self.layer_maps}|.*{self.language}\.embed_tokens|.*lm_head"

    @property
    def saved_whole(self) -> list[str]:
        """Ends of the names of modules that are trained and sent whole."""
        return [self.projector, "input_layernorm", "post_attention_layernorm", f"{self.language}.norm"]


def bare(model: nn.Module) -> Any:
    """The transformers model itself, out of peft's wrapper if there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
