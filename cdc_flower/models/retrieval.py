"""The retrieval head of a student: a clip and a sentence, each as one vector; near means that they belong.

Two linear maps without bias read hidden states after the final norm: of a clip the state at the last id of
the picture in the prompt, of a sentence the state at its last id, in a prompt without a picture. Both are
scaled to length 1, as in CLIP (arXiv 2103.00020). The states are those of the student under its present
adapter, so whatever adapts the student adapts retrieval; the head itself stays as it was pretrained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_bytes
from torch import Tensor, nn
from torch.nn import functional as F

from cdc_flower import disk
from cdc_flower.config import ConfigError
from cdc_flower.data.features import Grid
from cdc_flower.models import vlm
from cdc_flower.models.vlm import Inputs, Text

FILE = "retrieval.safetensors"  # in a pair folder
WIDTH = 64  # of a vector
BATCH = 64  # clips or sentences in a pass


class Head(nn.Module):
    """The maps `clip` and `text`, and `scale`, by whose exponential cosines are multiplied in training."""

    def __init__(self, hidden: int, width: int = WIDTH) -> None:
        super().__init__()
        self.clip = nn.Linear(hidden, width, bias=False)
        self.text = nn.Linear(hidden, width, bias=False)
        self.scale = nn.Parameter(torch.tensor(2.5))

    def of_clips(self, states: Tensor) -> Tensor:
        """Vectors (B, E) of length 1 of clips, from hidden states (B, H)."""
        return F.normalize(self.clip(states), dim=-1)

    def of_texts(self, states: Tensor) -> Tensor:
        """Vectors (B, E) of length 1 of sentences, from hidden states (B, H)."""
        return F.normalize(self.text(states), dim=-1)

    @property
    def digest(self) -> bytes:
        """Eight bytes of blake2b over the float32 bytes of both maps."""
        parts = (p.detach().cpu().float().numpy().astype("<f4").tobytes() for p in self.parameters())
        return hashlib.blake2b(b"".join(parts), digest_size=8).digest()


def contrast(head: Head, clips: Tensor, texts: Tensor, same: Tensor) -> Tensor:
    """Symmetric InfoNCE of a batch: mean cross entropy of finding the text of a clip, and the clip of a text.

    Args:
        clips, texts: (B, E) of length 1; those of a row belong together.
        same: (B, B) bool: whose texts are equal. All clips of an equal text are right.
    """
    logits = head.scale.exp().clamp_max(100.0) * clips @ texts.T
    wanted = same.float() / same.sum(1, keepdim=True)
    both = (logits, wanted), (logits.T, wanted.T / wanted.T.sum(1, keepdim=True))
    return sum((F.cross_entropy(found, right) for found, right in both), torch.zeros(())) / 2


def shown(inputs: Inputs, hidden: Tensor) -> Tensor:
    """The states (B, H) at the last id of every picture, of hidden states (B, S, H)."""
    return hidden[
        torch.arange(len(hidden), device=hidden.device), inputs.slots.max(1).values.to(hidden.device)
    ]


def said(model: nn.Module, text: Text, sentences: Sequence[str], width: int) -> Tensor:
    """The states (B, H) at the last ids of sentences.

    Args:
        width: D, values of a vision token.
    """
    rows = [text.sentence_ids(sentence) for sentence in sentences]
    length = max(map(len, rows))
    ids = torch.full((len(rows), length), text.eos)
    for row, own in zip(ids, rows, strict=True):
        row[: len(own)] = torch.tensor(own)
    ends = torch.tensor([len(own) for own in rows])
    nothing = torch.full((len(rows), 1), -1)
    inputs = Inputs(
        tokens=torch.zeros(len(rows), 1, width),
        positions=nothing,
        slots=nothing,
        ids=ids,
        position_ids=torch.from_numpy(np.stack([text.places(length)] * len(rows))),
        mask=torch.arange(length) < ends[:, None],
        question=torch.zeros(len(rows), dtype=torch.long),
        length=ends,
        answer_ids=None,
    )
    hidden = vlm.forward(model, inputs).hidden
    return hidden[torch.arange(len(rows), device=hidden.device), ends.to(hidden.device) - 1]


@torch.no_grad()
def clip_vectors(
    model: nn.Module,
    text: Text,
    head: Head,
    tokens: Sequence[np.ndarray],
    grids: Sequence[Grid] | None = None,
) -> np.ndarray:
    """Vectors (B, E) float32 of clips, by the student as it is now.

    Args:
        model: the student with its adapter.
        text, head: of the pair (`Shared.text`, `Shared.head`).
        tokens: (n_i, D) of each clip.
        grids: of each; may be left out where all are the same.
    """
    found = []
    for at in range(0, len(tokens), BATCH):
        some = tokens[at : at + BATCH]
        own = None if grids is None else grids[at : at + BATCH]
        inputs = vlm.collate(text, some, [[]] * len(some), grids=own)
        found.append(head.of_clips(shown(inputs, vlm.forward(model, inputs).hidden).float().cpu()).numpy())
    return np.concatenate(found)


@torch.no_grad()
def text_vectors(
    model: nn.Module, text: Text, head: Head, sentences: Sequence[str], width: int
) -> np.ndarray:
    """Vectors (B, E) float32 of sentences, by the student as it is now; arguments as of `clip_vectors`, and
    `width`, D, the values of a vision token (`Shared.width`).
    """
    found = []
    for at in range(0, len(sentences), BATCH):
        states = said(model, text, sentences[at : at + BATCH], width)
        found.append(head.of_texts(states.float().cpu()).numpy())
    return np.concatenate(found)


def save(head: Head, folder: Path) -> None:
    """Write a head into a pair folder."""
    tensors = {name: p.detach().cpu().float().contiguous() for name, p in head.state_dict().items()}
    disk.replace(folder / FILE, save_bytes(tensors))


def load(folder: Path | None, hidden: int) -> Head | None:
    """The head of a pair folder; None where there is none.

    Args:
        folder: None = bare checkpoints, which have none.
        hidden: H of the student.

    Raises:
        ConfigError: a damaged file, or one for another width.
    """
    path = folder / FILE if folder is not None else None
    if path is None or not path.is_file():
        return None
    wanted = {"clip.weight": [WIDTH, hidden], "text.weight": [WIDTH, hidden], "scale": []}
    try:
        with safe_open(path, framework="pt") as file:
            found = {n: file.get_slice(n).get_shape() for n in file.keys()}  # noqa: SIM118
            if found != wanted:  # before anything is read
                raise ConfigError(f"'{path}': {found}; allowed: {wanted}")
            tensors = {n: file.get_tensor(n).float() for n in wanted}
    except (OSError, SafetensorError) as err:
        raise ConfigError(f"'{path}': not a retrieval head ({err})") from None
    if not all(bool(torch.isfinite(t).all()) for t in tensors.values()):
        raise ConfigError(f"'{path}': values that are not finite; allowed: another pair")
    head = Head(hidden)
    head.load_state_dict(tensors)
    return head.requires_grad_(False).eval()
