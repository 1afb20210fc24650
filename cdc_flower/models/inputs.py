"""What goes into a forward pass: the prompt of a checkpoint, and samples padded into one batch.

The prompt is the checkpoint's own chat template for a user's turn of one picture and a question. In the
sequence a picture is as many ids as it has tokens; tokens that were not sent are absent from the sequence
while everything else keeps its position id, so the language model sees a gap and not another picture.
Sequences are padded on the right. A clip is a turn of several pictures, its frames; what is said of a
picture here is then true of all of them together, whose tokens stand one frame after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cdc_flower.data.features import Grid
from cdc_flower.models.family import Family
from cdc_flower.tasks.exact import normalise

PREFIXES = 256
"""Prompts of so many grids are kept."""
_ASKED = "@question@"
"""In the place of a question, to see what a prompt has around it."""


class Prefix(NamedTuple):
    """A prompt up to the last id of the picture: ids (P,) int64, and where those of the picture are (n,)."""

    ids: np.ndarray
    slots: np.ndarray


@dataclass(frozen=True, eq=False)
class Text:
    """Tokenizer and prompt of a pair.

    Attributes:
        tokenizer: with a chat template.
        family: how a picture stands in the prompt.
        config: the student's.
        ends: ids that end an answer; the first is the one that is taught.
        frames: pictures of a clip; 0 = samples are pictures.
    """

    tokenizer: PreTrainedTokenizerBase
    family: Family
    config: Any
    ends: tuple[int, ...]
    frames: int = 0

    @property
    def pictures(self) -> int:
        """How many pictures a prompt has."""
        return max(1, self.frames)

    @property
    def eos(self) -> int:
        """Id of the end token."""
        return self.ends[0]

    @property
    def image_id(self) -> int:
        """Id of a picture's token in the sequence."""
        return self.config.image_token_id

    @cached_property
    def image(self) -> str:
        """The word with that id."""
        return self.word(self.image_id)

    @cached_property
    def mark(self) -> str:
        """The word that the chat template writes for a picture."""
        return self.word(self.family.mark(self.config))

    def word(self, i: int) -> str:
        """The word with an id; "" where the tokenizer has none."""
        found = self.tokenizer.convert_ids_to_tokens(i) if i < len(self.tokenizer) else ""
        return cast(str, found or "")

    @cached_property
    def grid(self) -> Grid | None:
        """The grid of every sample; None where it depends on the picture."""
        found = self.family.grid(self.config)
        return None if found is None else found.of_clip(self.pictures)

    @cached_property
    def smallest(self) -> Grid:
        """The grid of the smallest sample."""
        return self.family.smallest(self.config).of_clip(self.pictures)

    @cached_property
    def _prefixes(self) -> dict[Grid, Prefix]:
        return {}

    def prompt(self, question: str) -> str:
        """The prompt in words, with one word for each picture."""
        words = question.replace(self.mark, "").replace(self.image, "")  # it cannot bring its own pictures
        shown = [{"type": "image"}] * self.pictures
        turn = {"role": "user", "content": [*shown, {"type": "text", "text": words}]}
        made = self.tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
        return cast(str, made)

    @cached_property
    def _begun(self) -> bool:
        """Whether the template writes the start token itself."""
        begins = cast(str | None, self.tokenizer.bos_token)
        return begins is not None and begins in self.prompt("")

    def _picture(self, grid: Grid) -> str:
        """What stands in a prompt for one picture of a sample."""
        return self.family.image_words(self.config, grid.of_frame(self.pictures), self.word)

    def _ids(self, question: str, grid: Grid) -> tuple[list[int], int]:
        """Ids of the prompt, and where the question begins: after the last id of the picture."""
        words = self.prompt(question).replace(self.mark, self._picture(grid))
        ids = list(self.tokenizer(words, add_special_tokens=not self._begun)["input_ids"])
        return ids, len(ids) - ids[::-1].index(self.image_id)

    def prefix(self, grid: Grid) -> Prefix:
        """The prompt up to the last id of a picture."""
        found = self._prefixes.get(grid)
        if found is None:
            if len(self._prefixes) == PREFIXES:
                del self._prefixes[next(iter(self._prefixes))]
            ids, at = self._ids("", grid)
            array = np.array(ids[:at], np.int64)
            slots = self.family.slots(np.flatnonzero(array == self.image_id), grid)
            found = self._prefixes[grid] = Prefix(array, slots)
            if len(found.slots) != grid.n:
                raise ValueError(f"prompt with {len(found.slots)} ids for a picture of {grid}")
        return found

    def prefix_ids(self, grid: Grid | None = None) -> list[int]:
        """Ids of the prompt up to the last of the picture; without a grid where all have the same."""
        return self.prefix(cast(Grid, grid or self.grid)).ids.tolist()

    def question_ids(self, question: str) -> list[int]:
        """Ids of the prompt after the picture."""
        ids, at = self._ids(question, self.smallest)
        return ids[at:]

    def answer_ids(self, answer: str) -> list[int]:
        """Ids of an answer, without the end token."""
        return list(self.tokenizer(answer, add_special_tokens=False)["input_ids"]) if answer else []

    def sentence_ids(self, sentence: str) -> list[int]:
        """Ids of a sentence alone, where nothing is shown and nothing asked."""
        begin = self.tokenizer.bos_token_id
        return [*([] if begin is None else [cast(int, begin)]), *self.answer_ids(sentence)]

    def places(self, length: int) -> np.ndarray:
        """Position ids (length,) or (length, axes) of a sequence without a picture."""
        ids, slots = self.prefix(self.smallest)
        return np.add.outer(np.arange(length), self.family.positions(ids, slots, self.smallest)[0])

    def words(self, ids: Sequence[int]) -> str:
        """The words of ids, without the tokenizer's special ones."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def decode(self, ids: Sequence[int]) -> str:
        """The words of an answer, normalised."""
        return normalise(self.words(ids))

    @cached_property
    def _around(self) -> tuple[str, str]:
        """What the prompt has between picture and question, and behind the question; as `words` gives it."""
        prompt = self.prompt(_ASKED).replace(self.mark, self._picture(self.smallest))
        prompt = prompt.rpartition(self.image)[2]
        before, _, behind = prompt.partition(_ASKED)
        made = (self.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, behind))
        before, behind = map(self.words, made)
        return before, behind

    def question_of(self, ids: Sequence[int]) -> str:
        """The question, of ids that `question_ids` gave; spaces may differ where a tokenizer drops some.

        Of ids that are no prompt of this template all words.
        """
        before, behind = self._around
        words = _without(self.words(ids), before)
        return _without(words[::-1], behind[::-1])[::-1].strip()


def _without(words: str, beginning: str) -> str:
    """Words without a beginning, spaces aside; as they are where they begin with something else."""
    at = 0
    for letter in "".join(beginning.split()):
        while at < len(words) and words[at].isspace():
            at += 1
        if at == len(words) or words[at] != letter:
            return words
        at += 1
    return words[at:]


@dataclass(frozen=True)
class Inputs:
    """A batch of B sequences: prompt with K ids of the picture, question, answer, padding; S long."""

    tokens: Tensor  # (B, K, D) float32, 0 in slots of padding
    positions: Tensor  # (B, K) int64: place of a token in its picture, rising; -1 = not there
    slots: Tensor  # (B, K) int64: place of a token in the sequence; -1 in slots of padding
    ids: Tensor  # (B, S) int64
    position_ids: Tensor  # (B, S) or (B, S, axes) int64: places in the complete sequence
    mask: Tensor  # (B, S) bool: False in padding
    question: Tensor  # (B,) int64: where the question begins
    length: Tensor  # (B,) int64: of the sequence without the answer
    answer_ids: Tensor | None  # (B, A) int64 with the end token, padded with -100

    def to(self, device: torch.device | str) -> Inputs:
        """The batch on another device."""
        return replace(self, **{name: v.to(device) for name, v in vars(self).items() if v is not None})

    @property
    def pictured(self) -> Tensor:
        """Which places of the sequences are tokens of their picture: (B, S) bool."""
        there = self.slots >= 0
        row = torch.arange(len(there), device=there.device)[:, None].expand_as(there)
        found = torch.zeros_like(self.ids, dtype=torch.bool)
        found[row[there], self.slots[there]] = True
        return found

    def at_tokens(self, x: Tensor) -> Tensor:
        """The columns of x (B, S, ...) that belong to vision tokens: (B, K, ...), 0 in slots of padding."""
        slots = self.slots.view(*self.slots.shape, *[1] * (x.dim() - 2))
        return x.gather(1, slots.clamp_min(0).expand(-1, -1, *x.shape[2:])) * (slots >= 0)


def collate(
    text: Text,
    tokens: Sequence[np.ndarray] | np.ndarray,
    questions: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]] | None = None,
    positions: Sequence[np.ndarray] | None = None,
    length: int = 0,
    grids: Sequence[Grid] | None = None,
    ended: Sequence[bool] | None = None,
) -> Inputs:
    """Pad samples into one batch.

    Args:
        tokens: B arrays (K_i, D) of any float type.
        questions: B id lists from `Text.question_ids`.
        answers: B id lists from `Text.answer_ids`, or None to predict.
        positions: B arrays (K_i,), rising; None when every picture is complete.
        length: S is at least this. Where it is the same, a sample's bits do not depend on its neighbours
            (docs/fleet.md, Determinism).
        grids: of the pictures; may be left out where all are the same.
        ended: whether the end of each answer is taught; all are where it is left out.

    Raises:
        ValueError: a complete picture that does not have its grid's tokens.
    """
    b = len(questions)
    rows = [
        _row(
            text,
            grids[i] if grids is not None else cast(Grid, text.grid),
            len(tokens[i]),
            questions[i],
            [] if answers is None else [*answers[i], text.eos],
            None if positions is None else np.asarray(positions[i], np.int64),
        )
        for i in range(b)
    ]
    size = max(length, *(len(row.ids) for row in rows))
    most = max(1, *(len(row.slots) for row in rows))
    vision = np.zeros((b, most, np.asarray(tokens[0]).shape[-1]), np.float32)
    spots, slots = np.full((2, b, most), -1, np.int64)
    ids = np.full((b, size), text.eos, np.int64)
    places = np.zeros((b, size, *rows[0].places.shape[1:]), np.int64)
    wanted = None if answers is None else np.full((b, max(map(len, answers)) + 1), -100, np.int64)
    for i, row in enumerate(rows):
        k, s = len(row.slots), len(row.ids)
        vision[i, :k], spots[i, :k], slots[i, :k] = tokens[i], row.spots, row.slots
        ids[i, :s], places[i, :s], places[i, s:] = row.ids, row.places, row.places[-1]
        if wanted is not None and answers is not None:
            taught = [*answers[i], text.eos] if ended is None or ended[i] else answers[i]
            wanted[i, : len(taught)] = taught
    ends = np.array([len(row.ids) for row in rows])
    of_answer = 0 if answers is None else np.array([len(a) + 1 for a in answers])
    return Inputs(
        torch.from_numpy(vision),
        torch.from_numpy(spots),
        torch.from_numpy(slots),
        torch.from_numpy(ids),
        torch.from_numpy(places),
        torch.from_numpy(np.arange(size) < ends[:, None]),
        torch.tensor([row.question for row in rows]),
        torch.from_numpy(ends - of_answer),
        None if wanted is None else torch.from_numpy(wanted),
    )


class _Row(NamedTuple):
    """A sequence without its padding: ids (S,), places (S,) or (S, axes), slots (K,), spots (K,)."""

    ids: np.ndarray
    places: np.ndarray
    slots: np.ndarray
    spots: np.ndarray
    question: int


def _row(
    text: Text,
    grid: Grid,
    tokens: int,
    question: Sequence[int],
    answer: Sequence[int],
    spots: np.ndarray | None,
) -> _Row:
    prefix = text.prefix(grid)
    if tokens != (grid.n if spots is None else len(spots)):
        raise ValueError(f"{tokens} tokens for {'all' if spots is None else len(spots)} places of {grid}")
    ids = np.concatenate([prefix.ids, np.array([*question, *answer], np.int64)])
    places, begins = text.family.positions(ids, prefix.slots, grid), len(prefix.ids)
    if spots is None:
        return _Row(ids, places, prefix.slots, np.arange(grid.n), begins)
    there = np.ones(len(ids), bool)
    there[prefix.slots] = False
    there[prefix.slots[spots]] = True
    slots = (np.cumsum(there) - 1)[prefix.slots[spots]]
    return _Row(ids[there], places[there], slots, spots, begins - grid.n + len(spots))
