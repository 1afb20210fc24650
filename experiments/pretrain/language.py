"""Stages 2 and 3 of a pair: projector and language model on the frozen tower's outputs.

Several questions about a picture share one sequence, but none sees another; without that mask a model copies
from the other questions and stays at chance on the picture (docs/log.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import nn
from transformers import (
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from cdc_flower.data.packs import CAPTION
from cdc_flower.models import placement, vlm
from cdc_flower.models.retrieval import Head, clip_vectors, contrast, said, shown, text_vectors
from cdc_flower.tasks.retrieval import both_ways, equal
from experiments.pretrain.optimise import Progress, optimise
from experiments.pretrain.recipes import LanguageModel, Recipe
from experiments.pretrain.tower import Targets, wide_init

TEMPLATE = """{{ bos_token }}{% for turn in messages %}{% for part in turn['content'] %}\
{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"""
"""The prompt of these pairs: the picture, then the question."""
OF_CLIPS = TEMPLATE.replace("<image>", "{{ 'frame' ~ loop.index }} <image>")
"""Before each frame of a clip a word says which it is."""
ROPE, ROPE_OF_CLIPS = 1e6, 100.0
"""Base of the rotary positions: for clips most of its periods are between a frame and a clip."""


def make_tokenizer(frame: pd.DataFrame, frames: int = 0) -> PreTrainedTokenizerFast:
    """One word, one id: lower case, split at spaces and punctuation; from all training text, and a word for
    each of `frames`.
    """
    pre = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    texts = pd.concat([frame["question"], frame["answer"]]).str.lower().str.replace("?", "")
    words = {w for text in texts.unique() for w, _ in pre.pre_tokenize_str(text)}
    words |= {f"frame{i + 1}" for i in range(frames)}
    vocab = {w: i for i, w in enumerate(["<pad>", "<s>", "</s>", "<unk>", "<image>", *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace("?", "")])
    tokenizer.pre_tokenizer = pre
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        clean_up_tokenization_spaces=False,
        chat_template=OF_CLIPS if frames else TEMPLATE,
    )


def make_llava(
    tower: CLIPVisionModel, lm: LanguageModel, tokenizer: PreTrainedTokenizerFast, seed: int, frames: int = 0
) -> LlavaForConditionalGeneration:
    """An untrained LLaVA around a trained tower, for clips of so many frames."""
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=LlamaConfig(
            vocab_size=-(-len(tokenizer) // 8) * 8,
            hidden_size=lm.hidden,
            intermediate_size=lm.intermediate,
            num_hidden_layers=lm.layers,
            num_attention_heads=lm.heads,
            num_key_value_heads=lm.heads,
            max_position_embeddings=512,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
            tie_word_embeddings=False,
            rope_parameters={"rope_type": "default", "rope_theta": ROPE_OF_CLIPS if frames else ROPE},
        ),
        image_token_index=4,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    wide_init(model, 0.06)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.vision_tower.requires_grad_(False)
    return model


def _centre(model: LlavaForConditionalGeneration, tokens: np.ndarray, seed: int) -> None:
    """Start the projector at whitened tokens, the word embeddings at the same scale.

    A tower's output varies a hundred times more along some directions than along others, and what tells
    shapes apart is among the weak ones; from a plain start the language model stays at question-only accuracy
    for thousands of steps.
    """
    rng = np.random.default_rng(seed)
    some = tokens[rng.integers(len(tokens), size=min(1000, len(tokens)))].reshape(-1, tokens.shape[-1])
    x = torch.from_numpy(some.astype(np.float32))
    mean = x.mean(0)
    _, singular, v = torch.linalg.svd(x - mean, full_matrices=False)
    spread = singular / len(x) ** 0.5
    white = v.T @ torch.diag(1 / (spread + 0.05 * spread[0])) @ v
    projector = model.model.multi_modal_projector
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        mix = torch.randn(projector.linear_1.weight.shape, generator=generator) / x.shape[1] ** 0.5
        projector.linear_1.weight.copy_(mix @ white)
        projector.linear_1.bias.copy_(-(mix @ white) @ mean)
        second = projector.linear_2
        second.weight.normal_(std=1.4 / second.in_features**0.5, generator=generator)
        model.model.language_model.embed_tokens.weight.normal_(std=0.7, generator=generator)


def _name_regions(
    model: LlavaForConditionalGeneration, text: vlm.Text, goal: Targets, tokens: np.ndarray
) -> None:
    """Start each word that names something at the mean projected token of its regions, less that of all.

    A language model of ordinary size knows its words before it sees a picture; one trained from nothing on a
    few domains would have noise for every word of the others.
    """
    rows = np.random.default_rng(0).permutation(len(goal.image))[:20_000]
    pooled = np.einsum("rn,rnd->rd", goal.pool[rows], tokens[goal.image[rows]].astype(np.float32))
    with torch.no_grad():
        seen = model.model.multi_modal_projector(torch.from_numpy(pooled))
        seen = seen - seen.mean(0)
        label = torch.from_numpy(goal.label[rows] * goal.known[rows])
        mean = label.T @ seen / label.sum(0).clamp_min(1)[:, None]
        words: dict[int, list[torch.Tensor]] = {}
        for name, vector in zip(goal.names, mean, strict=True):
            for word in text.answer_ids(name.rpartition("=")[2]):
                words.setdefault(word, []).append(vector)
        table = model.model.language_model.embed_tokens.weight
        for word, vectors in words.items():
            vector = torch.stack(vectors).mean(0)
            table[word] = 0.7 * vector / vector.square().mean().sqrt().clamp_min(1e-6)


CHECKED = 200  # pictures for validation, at most
CONTRAST = 0.3  # weight of the contrast of captions beside the cross entropy of answers


@dataclass(frozen=True)
class Turns:
    """Several questions about each picture in one sequence, none of which sees another."""

    inputs: vlm.Inputs  # the question: the turns one after the other, each at the positions it has alone
    labels: torch.Tensor  # (B, S) int64, -100 where nothing is asked
    turn: torch.Tensor  # (B, S) int64, which turn a position belongs to; -1 before the first

    def to(self, device: torch.device) -> Turns:
        """The batch on another device."""
        return Turns(self.inputs.to(device), self.labels.to(device), self.turn.to(device))


def collate_turns(
    text: vlm.Text,
    tokens: list[np.ndarray],
    kept: list[np.ndarray],
    turns: list[list[tuple[list[int], list[int]]]],
) -> Turns:
    """Pad pictures with their (question ids, answer ids) lists."""
    rows = [[q + a + [text.eos] for q, a in picture] for picture in turns]
    inputs = vlm.collate(text, tokens, [[i for ids in row for i in ids] for row in rows], None, kept)
    labels, turn = torch.full_like(inputs.ids, -100), torch.full_like(inputs.ids, -1)
    place = len(text.prefix_ids())
    for i, (picture, row) in enumerate(zip(turns, rows, strict=True)):
        start = int(inputs.question[i])
        for t, ((question, _), ids) in enumerate(zip(picture, row, strict=True)):
            end = start + len(ids)
            labels[i, start + len(question) : end] = torch.tensor(ids[len(question) :])
            turn[i, start:end] = t
            inputs.position_ids[i, start:end] = place + torch.arange(len(ids))
            start = end
    return Turns(inputs, labels, turn)


def turns_states(model: nn.Module, batch: Turns) -> torch.Tensor:
    """Hidden states (B, S, H) after the final norm.

    Each question sees the picture and itself, at the positions it would have alone. The batch is where the
    model is.
    """
    inputs, turn, size = batch.inputs, batch.turn, batch.turn.shape[1]
    seen = torch.ones(size, size, dtype=torch.bool, device=turn.device).tril()[None] & inputs.mask[:, None]
    seen &= (turn[:, None] == -1) | (turn[:, :, None] == turn[:, None])
    seen |= torch.eye(size, dtype=torch.bool, device=turn.device)[None]  # a padding row must see something
    bias = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[:, None]
    return vlm.run(model, inputs, bias, use_cache=False).last_hidden_state


def turns_loss(
    model: nn.Module, batch: Turns, smoothing: float, hidden: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean cross entropy over the answers' tokens.

    Args:
        hidden: what `turns_states` gave, where it is at hand.
    """
    hidden = turns_states(model, batch) if hidden is None else hidden
    labels = batch.labels[:, 1:]
    asked = labels != -100
    logits = vlm.parts(model)[2](hidden[:, :-1][asked].float())
    return nn.functional.cross_entropy(logits, labels[asked], label_smoothing=smoothing)


def train_language(
    name: str,
    model: LlavaForConditionalGeneration,
    text: vlm.Text,
    goal: Targets,
    frame: pd.DataFrame,
    tokens: np.ndarray,
    checked: tuple[pd.DataFrame, np.ndarray],
    steps: int,
    recipe: Recipe,
    folder: Path,
    fingerprint: str,
    progress: Progress | None,
    head: Head | None = None,
) -> dict[str, float]:
    """Projector and language model on `frame` (columns question, answer, image_row) and tokens (M, N, D);
    `checked` is the same for validation. Returns what `optimise` says.

    A step reads `recipe.batch` pictures with up to `recipe.turns` questions each. One batch in
    `recipe.full_every` holds all tokens, the others a quarter to five eighths of each picture's, at random,
    or, of clips, every other time all tokens of some frames. Captions are taught, too, as answers: what they
    name of a clip the questions about it name a part of.

    Args:
        head: for retrieval; trained along on the captions that `frame` has, by contrast within a batch.
    """
    captions = captions_of(frame) if head is not None else {}
    checked = questions_of(checked[0], text), checked[1]
    questions = [text.question_ids(q) for q in frame["question"]]
    answers = [text.answer_ids(a) for a in frame["answer"]]
    rows_of = frame.reset_index(drop=True).groupby("image_row").indices
    pictures = np.array(sorted(rows_of))
    n = tokens.shape[1]
    _centre(model, tokens, recipe.seed)
    if name == "student" and recipe.student_words:
        _name_regions(model, text, goal, tokens)
    moved: list[nn.Module] = [model] if head is None else [model, head]
    for module in moved:
        module.to(placement.here().device)
    trained = nn.ModuleDict(
        {
            "projector": model.model.multi_modal_projector,
            "lm": model.model.language_model,
            "head": model.lm_head,
            **({"retrieval": head} if head is not None else {}),
        }
    )

    def validate() -> float:
        model.eval()
        found = validation_loss(model, text, *checked, recipe)
        model.train()
        return found

    def loss_of(step: int) -> torch.Tensor:
        rng = np.random.default_rng([recipe.seed, 2, step])
        picked = pictures[rng.integers(len(pictures), size=recipe.batch)]
        k = n if step % recipe.full_every == 0 else int(rng.integers(n // 4, 5 * n // 8 + 1))
        kept = [np.sort(rng.permutation(n)[:k]) for _ in picked]
        if text.frames > 1 and k < n and step % (2 * recipe.full_every) == 1:
            kept = [_frames(n, text.frames, rng) for _ in picked]
        turns = [
            [(questions[r], answers[r]) for r in rng.permutation(rows_of[i])[: recipe.turns]] for i in picked
        ]
        batch = collate_turns(text, [tokens[i][p] for i, p in zip(picked, kept, strict=True)], kept, turns)
        batch = batch.to(placement.device_of(model))
        hidden = turns_states(model, batch)
        loss = turns_loss(model, batch, recipe.label_smoothing, hidden)
        if head is None or k < n:
            return loss
        pairs = [(row, rng.choice(captions[i])) for row, i in enumerate(picked) if i in captions]
        return loss + CONTRAST * caption_loss(model, text, head, batch, hidden, pairs)

    model.train()
    found = optimise(
        name, trained, loss_of, steps, recipe.lr, recipe, folder, fingerprint, progress, validate
    )
    model.eval()
    if head is not None:
        head.cpu()  # what reads it computes there
    return found


def questions_of(frame: pd.DataFrame, text: vlm.Text) -> pd.DataFrame:
    """Rows that a model is judged by: of clips not their captions, where there is anything else."""
    rest = frame[frame["qtype"] != CAPTION] if text.frames else frame
    return frame if rest.empty else rest


def captions_of(frame: pd.DataFrame) -> dict[int, list[str]]:
    """Row of a clip -> its captions."""
    rows = frame[frame["qtype"] == CAPTION]
    return {cast(int, i): some.tolist() for i, some in rows.groupby("image_row")["answer"]}


def _frames(n: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """The tokens of some frames of a clip, at least of two."""
    some = np.sort(rng.permutation(frames)[: int(rng.integers(2, frames + 1))])
    return np.arange(n).reshape(frames, -1)[some].ravel()


def caption_loss(
    model: nn.Module,
    text: vlm.Text,
    head: Head,
    batch: Turns,
    hidden: torch.Tensor,
    pairs: list[tuple[int, str]],
) -> torch.Tensor:
    """The contrast of rows of a batch, with their hidden states, and a caption of each."""
    rows, words = [row for row, _ in pairs], [caption for _, caption in pairs]
    clips = head.of_clips(shown(batch.inputs, hidden)[rows].float())
    texts = head.of_texts(said(model, text, words, batch.inputs.tokens.shape[-1]).float())
    return contrast(head, clips, texts, torch.from_numpy(equal(words)).to(clips.device))


@torch.no_grad()
def validation_loss(
    model: nn.Module, text: vlm.Text, frame: pd.DataFrame, tokens: np.ndarray, recipe: Recipe
) -> float:
    """Mean cross entropy of the answers to questions about up to `CHECKED` complete pictures."""
    rows_of = frame.reset_index(drop=True).groupby("image_row").indices
    pictures, asked, answered = (
        sorted(rows_of)[:CHECKED],
        frame["question"].tolist(),
        frame["answer"].tolist(),
    )
    whole, total, count = np.arange(tokens.shape[1]), 0.0, 0
    for start in range(0, len(pictures), recipe.batch):
        some = pictures[start : start + recipe.batch]
        turns = [
            [(text.question_ids(asked[r]), text.answer_ids(answered[r])) for r in rows_of[i][: recipe.turns]]
            for i in some
        ]
        batch = collate_turns(text, [tokens[i] for i in some], [whole] * len(some), turns)
        batch = batch.to(placement.device_of(model))
        judged = int((batch.labels[:, 1:] != -100).sum())
        total += float(turns_loss(model, batch, 0.0)) * judged
        count += judged
    return total / count


def scores(
    model: nn.Module, text: vlm.Text, frame: pd.DataFrame, tokens: np.ndarray
) -> dict[str, dict[str, float]]:
    """Share of right answers, by domain and by kind of question."""
    frame, right = questions_of(frame, text), []
    for i in range(0, len(frame), 128):
        rows = frame.iloc[i : i + 128]
        inputs = vlm.collate(
            text,
            [tokens[r] for r in rows["image_row"]],
            [text.question_ids(q) for q in rows["question"]],
            [text.answer_ids(a) for a in rows["answer"]],
        )
        right.append(vlm.correct(model, inputs))
    found = pd.Series(np.concatenate(right))
    by = {"by_domain": "drift_domain", "by_qtype": "qtype"}
    return {name: found.groupby(frame[c].to_numpy()).mean().round(4).to_dict() for name, c in by.items()}


@torch.no_grad()
def retrieved(
    model: nn.Module, text: vlm.Text, head: Head, frame: pd.DataFrame, tokens: np.ndarray
) -> dict[str, dict[str, float]]:
    """How well captions and clips of `frame` find each other (`cdc_flower.tasks.retrieval`)."""
    captions = {i: words[0] for i, words in captions_of(frame).items()}
    words = list(captions.values())
    clips = clip_vectors(model, text, head, [tokens[i] for i in captions])
    return both_ways(clips, text_vectors(model, text, head, words, tokens.shape[-1]), words)
