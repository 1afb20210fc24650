"""One forward pass for teacher, device and twin: LLaVA on vision tokens instead of pixels.

`LlavaForConditionalGeneration` scatters projected tower outputs over `<image>` placeholders. Here the tower
outputs are the input (cached, or received from a device), any subset of them may be missing, and only the
answer's logits are computed. A missing token is absent from the sequence while every other position keeps its
position id, so the language model sees a gap and not another picture. The sequence is
`prefix | kept tokens | question suffix | answer`; positions are those of the complete sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedTokenizerBase

from cdc_flower.tasks.exact import normalise


@dataclass(frozen=True)
class Text:
    """Tokenizer and prompt of a pair: the prompt is `prefix <image> suffix`, `{question}` in the suffix."""

    tokenizer: PreTrainedTokenizerBase
    prefix: str
    suffix: str
    n_tokens: int  # N, vision tokens of a picture

    @property
    def eos(self) -> int:
        """Id of the end token."""
        return cast(int, self.tokenizer.eos_token_id)

    @property
    def prefix_ids(self) -> list[int]:
        """Ids of the start token, where the tokenizer has one, and of the prefix."""
        bos = cast(int | None, self.tokenizer.bos_token_id)
        return ([] if bos is None else [bos]) + self._ids(self.prefix)

    def question_ids(self, question: str) -> list[int]:
        """Ids of the suffix with the question in it."""
        return self._ids(self.suffix.format(question=question))

    def answer_ids(self, answer: str) -> list[int]:
        """Ids of an answer, without the end token."""
        return self._ids(answer)

    def _ids(self, words: str) -> list[int]:
        return list(self.tokenizer(words, add_special_tokens=False)["input_ids"]) if words else []

    def decode(self, ids: Sequence[int]) -> str:
        """The words of an answer, normalised."""
        return normalise(str(self.tokenizer.decode(list(ids), skip_special_tokens=True)))


@dataclass(frozen=True)
class Inputs:
    """A batch for `forward`. Absent and padding slots have position -1 and False in the masks."""

    tokens: Tensor  # (B, K, D) float32
    positions: Tensor  # (B, K) int64, 0..N-1, or -1
    text_ids: Tensor  # (B, T) int64: question suffix, then the answer and its end token if there is one
    text_mask: Tensor  # (B, T) bool
    question_len: Tensor  # (B,) int64
    answer_ids: Tensor | None  # (B, A) int64 with the end token, padded with -100

    def to(self, device: torch.device | str) -> Inputs:
        """The batch on another device."""
        return replace(self, **{name: v.to(device) for name, v in vars(self).items() if v is not None})


def collate(
    text: Text,
    tokens: np.ndarray | Sequence[np.ndarray],
    questions: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]] | None = None,
    positions: Sequence[np.ndarray] | None = None,
    length: int = 0,
) -> Inputs:
    """Pad samples into one batch.

    Args:
        tokens: B arrays (K_i, D) of any float type, or one array (B, N, D).
        questions: B id lists from `Text.question_ids`.
        answers: B id lists from `Text.answer_ids`, or None to predict.
        positions: B arrays (K_i,), None when every picture is complete.
        length: T is at least this. Where it is the same, a sample's bits do not depend on its neighbours'
            questions (docs/fleet.md, Determinism).
    """
    if positions is None:
        vision = torch.from_numpy(np.ascontiguousarray(np.asarray(tokens), np.float32))
        spots = torch.arange(vision.shape[1]).expand(vision.shape[0], -1)
    else:
        k = max(1, max(len(p) for p in positions))
        vision = torch.zeros(len(positions), k, np.asarray(tokens[0]).shape[-1])
        spots = torch.full((len(positions), k), -1, dtype=torch.int64)
        for i, (t, p) in enumerate(zip(tokens, positions, strict=True)):
            vision[i, : len(p)] = torch.from_numpy(np.asarray(t, np.float32))
            spots[i, : len(p)] = torch.from_numpy(np.asarray(p, np.int64))
    full = [
        list(q) + ([*a, text.eos] if answers is not None else [])
        for q, a in zip(questions, answers if answers is not None else [[]] * len(questions), strict=True)
    ]
    ids = torch.full((len(full), max(length, *map(len, full))), text.eos, dtype=torch.int64)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for i, row in enumerate(full):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = True
    wanted = None
    if answers is not None:
        wanted = torch.full((len(full), max(len(a) for a in answers) + 1), -100, dtype=torch.int64)
        for i, a in enumerate(answers):
            wanted[i, : len(a) + 1] = torch.tensor([*a, text.eos])
    return Inputs(vision, spots, ids, mask, torch.tensor([len(q) for q in questions]), wanted)


@dataclass(frozen=True)
class Output:
    """What `forward` returns. The sequence is P prefix, K vision and T text positions long: S = P + K + T."""

    logits: Tensor  # (B, A, V): of the answer's positions, or (B, 1, V) of the next token
    hidden: Tensor  # (B, S, H), after the final norm
    attentions: tuple[Tensor, ...] | None  # per layer (B, heads, S, S)
    prefix_len: int
    cache: DynamicCache | None
    mask: Tensor  # (B, S) bool


def _llava(model: nn.Module) -> Any:
    """The `LlavaForConditionalGeneration` itself, out of peft's wrapper if there is one."""
    return cast(Any, model).get_base_model() if hasattr(model, "get_base_model") else model


def parts(model: nn.Module) -> tuple[nn.Module, Any, nn.Module]:
    """(projector, language model, lm_head) of a LLaVA model, plain or wrapped by peft."""
    base = _llava(model)
    return base.model.multi_modal_projector, base.model.language_model, base.lm_head


def embed(model: nn.Module, text: Text, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings (B, S, H), position ids (B, S) and mask (B, S) of `prefix | tokens | text`."""
    projector, lm, _ = parts(model)
    b = inputs.tokens.shape[0]
    prefix = torch.tensor(text.prefix_ids, dtype=torch.int64, device=inputs.tokens.device)
    words = lm.get_input_embeddings()(torch.cat([prefix.expand(b, -1), inputs.text_ids], 1))
    vision = projector(inputs.tokens.to(words.dtype))
    p = len(prefix)
    embeds = torch.cat([words[:, :p], vision, words[:, p:]], 1)
    text_positions = p + text.n_tokens + torch.arange(inputs.text_ids.shape[1], device=prefix.device)
    position_ids = torch.cat(
        [
            torch.arange(p, device=prefix.device).expand(b, -1),
            p + inputs.positions.clamp_min(0),
            text_positions.expand(b, -1),
        ],
        1,
    )
    mask = torch.cat(
        [torch.ones(b, p, dtype=torch.bool, device=prefix.device), inputs.positions >= 0, inputs.text_mask], 1
    )
    return embeds, position_ids, mask


def forward(
    model: nn.Module,
    text: Text,
    inputs: Inputs,
    *,
    attention: bool = False,
    cache: bool = False,
    least: int = 1,
) -> Output:
    """Run the model over a batch; see `Output` for shapes. `attention` needs a model with eager attention,
    `least` is as in `answer`.
    """
    _, lm, head = parts(model)
    embeds, position_ids, mask = embed(model, text, inputs)
    out = lm(
        inputs_embeds=embeds,
        position_ids=position_ids,
        attention_mask=mask.long(),
        use_cache=cache,
        past_key_values=DynamicCache() if cache else None,
        output_attentions=attention,
    )
    p, k = len(text.prefix_ids), inputs.tokens.shape[1]
    hidden = out.last_hidden_state
    first = p + k + inputs.question_len - 1  # the position that predicts the answer's first token
    steps = 1 if inputs.answer_ids is None else inputs.answer_ids.shape[1]
    wanted = (first[:, None] + torch.arange(steps, device=first.device)).clamp_max(hidden.shape[1] - 1)
    picked = hidden.gather(1, wanted[..., None].expand(-1, -1, hidden.shape[-1]))
    logits = head(_repeated(picked, least))[: len(picked)]
    return Output(
        logits, hidden, out.attentions if attention else None, p, out.past_key_values if cache else None, mask
    )


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
    # Where asked for, B arrays (A_i + 1, k) each: the k largest logits of every step, int64 ids and float32
    # values; the step that follows the last token is among them.
    top_ids: list[np.ndarray] = field(default_factory=list)
    top_logits: list[np.ndarray] = field(default_factory=list)
    read: np.ndarray | None = None  # (B, N) float32: what `read` gave, where asked for


Read = Callable[[nn.Module, Output, Inputs], Tensor]
"""`(model, output, inputs) -> (B, N)`: something that a pass shows of every vision token."""


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
        read: is shown the pass over picture and question that begins every answer, attentions included.
        least: rows of a step of one token; of fewer the last is repeated, because small products of matrices
            run in other kernels with other bits (docs/fleet.md, Determinism).
    """
    _, lm, head = parts(model)
    out = forward(model, text, inputs, attention=read is not None, cache=True, least=least)
    shown = None if read is None else read(model, out, inputs).float().cpu().numpy()
    wanted, device = inputs.tokens.shape[0], inputs.tokens.device
    logits, mask, past = out.logits[:, -1], out.mask.long(), cast(DynamicCache, out.cache)
    position = len(text.prefix_ids) + text.n_tokens + inputs.question_len
    b = max(wanted, least)
    if b > wanted:
        past.batch_select_indices(_repeated(torch.arange(wanted, device=device), b))
        logits, mask, position = (_repeated(x, b) for x in (logits, mask, position))
    done = torch.zeros(b, dtype=torch.bool, device=device)
    ids: list[list[int]] = [[] for _ in range(b)]
    top_steps: list[tuple[np.ndarray, np.ndarray]] = []
    sums = {name: torch.zeros(b, device=device) for name in ("entropy", "margin", "log_prob", "steps")}
    for step in range(max_new + (top_k > 0)):
        if top_k:
            largest = logits.float().topk(min(top_k, logits.shape[-1]), -1)
            top_steps.append((largest.indices.cpu().numpy(), largest.values.cpu().numpy()))
            if step == max_new:  # of an answer that was cut: what comes after its last token
                break
        logp = logits.float().log_softmax(-1)
        top = logp.topk(2, -1).values
        live = (~done).float()
        sums["entropy"] += live * -(logp.exp() * logp).sum(-1)
        sums["margin"] += live * (top[:, 0].exp() - top[:, 1].exp())
        sums["log_prob"] += live * top[:, 0]
        sums["steps"] += live
        best = logp.argmax(-1)
        done = done | (best == text.eos)
        for i in torch.nonzero(~done).flatten().tolist():
            ids[i].append(int(best[i]))
        if bool(done.all()) or (step == max_new - 1 and not top_k):
            break
        mask = torch.cat([mask, torch.ones(b, 1, dtype=mask.dtype, device=device)], 1)
        out_next = lm(
            inputs_embeds=lm.get_input_embeddings()(best[:, None]),
            attention_mask=mask,
            position_ids=(position + step)[:, None],
            past_key_values=past,
            use_cache=True,
        )
        logits = head(out_next.last_hidden_state)[:, -1]
    steps = sums["steps"].clamp_min(1)
    found = (
        sums["entropy"] / steps,
        sums["margin"] / steps,
        sums["log_prob"],
        (sums["log_prob"] / steps).exp(),
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
def correct(model: nn.Module, text: Text, inputs: Inputs) -> np.ndarray:
    """Whether the greedy answer equals `inputs.answer_ids`: (B,) bool, in one pass.

    Greedy decoding produces an answer exactly when every step of the teacher-forced pass, end token included,
    has its maximum there. For evaluation only: it reads the labels.
    """
    assert inputs.answer_ids is not None
    best = forward(model, text, inputs).logits.argmax(-1)
    return ((best == inputs.answer_ids) | (inputs.answer_ids == -100)).all(1).cpu().numpy()


def as_read(processor: Any, images: Sequence[Image.Image]) -> np.ndarray:
    """Pictures as a tower reads them: resized and cropped by its processor, (B, H, W, 3) uint8.

    `encode_images` of these gives what it gives of the pictures themselves, but for the rounding to uint8.
    """
    made = processor(
        images=[im.convert("RGB") for im in images], return_tensors="np", do_rescale=False, do_normalize=False
    )["pixel_values"]
    return np.ascontiguousarray(np.clip(np.rint(made), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1))


def grey(processor: Any) -> np.ndarray:
    """The colour (3,) uint8 that a processor's normalisation maps to zero: nothing to see."""
    mean = getattr(processor, "image_mean", None) or (0.5, 0.5, 0.5)
    return np.rint(255 * np.asarray(mean, np.float64)).astype(np.uint8)


@torch.no_grad()
def encode_images(tower: nn.Module, config: Any, processor: Any, images: Sequence[Image.Image]) -> np.ndarray:
    """Vision tokens of pictures, from the checkpoint's own feature layer(s): (B, N, D) float16."""
    pixels = processor(images=[im.convert("RGB") for im in images], return_tensors="pt")["pixel_values"]
    weight = next(tower.parameters())
    states = tower(pixels.to(weight.device, weight.dtype), output_hidden_states=True).hidden_states
    layers = config.vision_feature_layer
    layers = [layers] if isinstance(layers, int) else list(layers)
    chosen = torch.cat([states[i] for i in layers], -1)
    if config.vision_feature_select_strategy == "default":
        chosen = chosen[:, 1:]
    return chosen.float().cpu().numpy().astype(np.float16)
