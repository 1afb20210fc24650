"""One forward pass for teacher, device and twin, on vision tokens instead of pixels; greedy answers.

The pass is the class's own: `model.model` is given the ids of the sequence and the projected tokens as
`mm_encoder_outputs`. Only the logits that predict the answer are computed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from cdc_flower.models import by_row
from cdc_flower.models.attention import Paid, shown
from cdc_flower.models.families import family_of, logits, parts
from cdc_flower.models.family import bare
from cdc_flower.models.inputs import Inputs, Text
from cdc_flower.models.placement import computing, device_of

# transformers calls it `cache` from 5.24 on and takes both names until 5.40; the lock has 5.23.
warnings.filterwarnings("ignore", "`past_key_values`", FutureWarning)

SHARP = 0.1  # temperature at which the released code answers and says how sure it is


@dataclass(frozen=True)
class Output:
    """What `forward` returns; S is the length of the sequences."""

    logits: Tensor  # (B, A, V) float32: of the answer's positions, or (B, 1, V) of the next token
    hidden: Tensor  # (B, S, H), after the final norm
    attended: Tensor | None  # (B, S) float32: what the question pays to every position (`attention.Paid`)
    cache: DynamicCache | None
    mask: Tensor  # (B, S) bool


def run(model: nn.Module, inputs: Inputs, mask: Tensor, **arguments: Any) -> Any:
    """The class's own pass without `lm_head` over a batch; its output.

    Args:
        mask: (B, S), or (B, 1, S, S) to be added to scores. It is always given: without one, positions with
            gaps are read as several sequences in a row.
        arguments: of the class's `forward`, further ones.
    """
    family, base = family_of(model), bare(model)
    there, pictures = inputs.slots >= 0, {}
    if bool(there.any()) or family.filler(base) is not None:
        weight = next(parts(base)[0].parameters())
        with computing():
            rows = by_row.project(family, base, inputs.tokens[there].to(weight.dtype), there.sum(1))
        pictures["image"] = family.encoded(base, _at_every_id(base, inputs, rows))
    with computing():
        return base.model(
            input_ids=inputs.ids,
            position_ids=axes_first(inputs.position_ids),
            attention_mask=mask,
            mm_encoder_outputs=pictures,
            **family.arguments(inputs),
            **arguments,
        )


def axes_first(positions: Tensor) -> Tensor:
    """Position ids as classes want them: (B, S), or (axes, B, S) of (B, S, axes)."""
    return positions if positions.dim() == 2 else positions.movedim(-1, 0)


def _at_every_id(base: Any, inputs: Inputs, projected: Tensor) -> Tensor:
    """Projected tokens (M, H or more) as the class wants them: a row for every id of a picture in the batch.

    In the picture's place those that are no token are the family's filler. A question or an answer may hold
    that id, too, and there it is a word like others.
    """
    ids = inputs.ids == base.config.image_token_id
    if int(ids.sum()) == len(projected):
        return projected
    words = base.get_input_embeddings()(inputs.ids)[ids].to(projected.dtype)
    line, places = family_of(base).filler(base), torch.arange(ids.shape[1], device=ids.device)
    if line is not None:
        words = torch.where((places < inputs.question[:, None])[ids][:, None], line.to(words.dtype), words)
    words = nn.functional.pad(words, (0, projected.shape[1] - words.shape[1]))  # what is added later: nothing
    return words.masked_scatter(inputs.pictured[ids][:, None], projected)


def forward(
    model: nn.Module, inputs: Inputs, *, attention: bool = False, cache: bool = False, least: int = 1
) -> Output:
    """Run the model over a batch; see `Output` for shapes. `attention` asks for `Output.attended`, `least` is
    as in `answer`. Tokens with position -1 are masked. The batch is moved to where the model is.
    """
    inputs = inputs.to(device_of(model))
    there, mask = inputs.slots >= 0, inputs.mask.clone()
    row = torch.arange(len(mask), device=mask.device)[:, None].expand_as(there)
    mask[row[there], inputs.slots[there]] = (inputs.positions >= 0)[there]
    past = DynamicCache() if cache else None
    paid = Paid(inputs, mask) if attention else None
    with nullcontext() if paid is None else shown(model, paid.add):
        out = run(model, inputs, mask.long(), use_cache=cache, past_key_values=past)
    hidden = out.last_hidden_state
    first = inputs.length - 1  # the position that predicts the answer's first token
    steps = 1 if inputs.answer_ids is None else inputs.answer_ids.shape[1]
    wanted = (first[:, None] + torch.arange(steps, device=first.device)).clamp_max(hidden.shape[1] - 1)
    picked = hidden.gather(1, wanted[..., None].expand(-1, -1, hidden.shape[-1]))
    found = logits(model, _repeated(picked, least))[: len(picked)].float()
    attended = None if paid is None else paid.mean
    return Output(found, hidden, attended, past, mask)


def _repeated(x: Tensor, least: int) -> Tensor:
    """At least so many rows; the last is repeated."""
    return x if len(x) >= least else x[torch.arange(least, device=x.device).clamp_max(len(x) - 1)]


@dataclass(frozen=True)
class Answers:
    """Greedy answers of B samples, with what uncertainty needs."""

    ids: list[list[int]]  # without the end token
    texts: list[str]
    entropy: np.ndarray  # (B,) nats: mean over the answer's steps of the predictive entropy
    margin: np.ndarray  # (B,) mean of p1 - p2
    log_prob: np.ndarray  # (B,) sum of log max-probabilities (the released rule multiplies probabilities)
    confidence: np.ndarray  # (B,) exp of the mean log max-probability
    sharp: np.ndarray  # (B,) as log_prob, of the logits divided by `SHARP`
    # Where asked for, B arrays (A_i + 1, k) each: the k largest logits of every step, int64 ids and float32
    # values; the step that follows the last token is among them.
    top_ids: list[np.ndarray] = field(default_factory=list)
    top_logits: list[np.ndarray] = field(default_factory=list)
    read: list[np.ndarray] | None = None  # B arrays (K_i,) float32: what `read` gave, where asked for


Read = Callable[[nn.Module, Output, Inputs], Tensor]
"""`(model, output, inputs) -> (B, K)`: something that a pass shows of every vision token."""


@torch.no_grad()
def answer(
    model: nn.Module,
    text: Text,
    inputs: Inputs,
    max_new: int,
    top_k: int = 0,
    read: Read | None = None,
    least: int = 1,
) -> Answers:
    """Answer greedily, at most `max_new` tokens; the end token counts as a step.

    Args:
        top_k: k of `Answers.top_ids` and `top_logits`; with 0 they are empty.
        read: is shown the pass over picture and question that begins every answer, attention included.
        least: rows of a step of one token; of fewer the last is repeated, because small products of matrices
            run in other kernels with other bits (docs/fleet.md, Determinism).
    """
    base, inputs = bare(model), inputs.to(device_of(model))
    out = forward(model, inputs, attention=read is not None, cache=True, least=least)
    shown = None
    if read is not None:
        every = read(model, out, inputs).float().cpu().numpy()
        shown = [row[there] for row, there in zip(every, (inputs.slots >= 0).cpu().numpy(), strict=True)]
    wanted, device = inputs.tokens.shape[0], inputs.tokens.device
    now, mask, past = out.logits[:, -1], out.mask.long(), cast(DynamicCache, out.cache)
    rows = torch.arange(wanted, device=device)
    position = inputs.position_ids[rows, inputs.length - 1] + 1  # (B,) or (B, axes)
    b = max(wanted, least)
    if b > wanted:
        past.batch_select_indices(_repeated(rows, b))
        now, mask, position = (_repeated(x, b) for x in (now, mask, position))
    ends = torch.tensor(text.ends, device=device)
    done = torch.zeros(b, dtype=torch.bool, device=device)
    ids: list[list[int]] = [[] for _ in range(b)]
    top_steps: list[tuple[np.ndarray, np.ndarray]] = []
    sums = {
        name: torch.zeros(b, device=device) for name in ("entropy", "margin", "log_prob", "sharp", "steps")
    }
    for step in range(max_new + (top_k > 0)):
        if top_k:
            largest = now.float().topk(min(top_k, now.shape[-1]), -1)
            top_steps.append((largest.indices.cpu().numpy(), largest.values.cpu().numpy()))
            if step == max_new:  # of an answer that was cut: what comes after its last token
                break
        logp = now.float().log_softmax(-1)
        top = logp.topk(2, -1).values
        live = (~done).float()
        sums["entropy"] += live * -(logp.exp() * logp).sum(-1)
        sums["margin"] += live * (top[:, 0].exp() - top[:, 1].exp())
        sums["log_prob"] += live * top[:, 0]
        sums["sharp"] -= live * ((logp - top[:, :1]) / SHARP).logsumexp(-1)
        sums["steps"] += live
        best = logp.argmax(-1)
        done = done | torch.isin(best, ends)
        for i in torch.nonzero(~done).flatten().tolist():
            ids[i].append(int(best[i]))
        if bool(done.all()) or (step == max_new - 1 and not top_k):
            break
        mask = torch.cat([mask, torch.ones(b, 1, dtype=mask.dtype, device=device)], 1)
        with computing():
            out_next = base.model(
                input_ids=best[:, None],
                attention_mask=mask,
                position_ids=axes_first((position + step)[:, None]),
                past_key_values=past,
                use_cache=True,
            )
        now = logits(model, out_next.last_hidden_state)[:, -1]
    steps = sums["steps"].clamp_min(1)
    found = (
        sums["entropy"] / steps,
        sums["margin"] / steps,
        sums["log_prob"],
        (sums["log_prob"] / steps).exp(),
        sums["sharp"],
    )
    ids = ids[:wanted]
    tops = [
        [np.stack([of_step[which][i] for of_step in top_steps[: len(own) + 1]]) for i, own in enumerate(ids)]
        if top_k
        else []
        for which in (0, 1)
    ]
    numbers = (t[:wanted].cpu().numpy().astype(np.float64) for t in found)
    return Answers(
        ids, [text.decode(i) for i in ids], *numbers, top_ids=tops[0], top_logits=tops[1], read=shown
    )


@torch.no_grad()
def correct(model: nn.Module, inputs: Inputs) -> np.ndarray:
    """Whether the greedy answer equals `inputs.answer_ids`: (B,) bool, in one pass.

    Greedy decoding produces an answer exactly when every step of the teacher-forced pass, end token included,
    has its maximum there. For evaluation only: it reads the labels.
    """
    assert inputs.answer_ids is not None
    best = forward(model, inputs).logits.argmax(-1).cpu()
    wanted = inputs.answer_ids.cpu()
    return ((best == wanted) | (wanted == -100)).all(1).numpy()
