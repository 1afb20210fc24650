"""Make a pair for any pack: tower, teacher, student, in three stages, resumable.

1. *tower*: a small CLIP vision model learns the pack's attributes (boxes with names where the pack has an `attributes` column, else the
   answers of its frequent questions and its class columns), on all training pictures. It is then frozen and run once over the pack.
2. *teacher*: projector and language model on the cached tower outputs, all domains.
3. *student*: a smaller language model, source domain only: what "the device was shipped with" means.

In one joint run from scratch such small models stay at question-only accuracy; in three stages each takes minutes on two cores. Both language
models see pictures with random tokens missing (`keep`), as a model that shall read a device's selection must.
The result is a pair folder of two ordinary Hugging Face LLaVA checkpoints; see `cdc_flower.models.pair`.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as hf_logging

from cdc_flower.config import Config, ConfigError
from cdc_flower.data import packs, stream
from cdc_flower.models import pair as pairs
from cdc_flower.models import vlm

Progress = Callable[[str, int, int], None]
SUFFIX = "{question}"


@dataclass(frozen=True)
class LanguageModel:
    """A small Llama: widths are multiples of 64 so that NF4 blocks fill."""

    hidden: int
    layers: int
    intermediate: int
    heads: int = 4


@dataclass(frozen=True)
class Recipe:
    """All that `pretrain` needs beyond the pack. Steps are optimizer steps; the defaults are those of `scenes`."""

    image_side: int = 96  # pixels; pictures are resized to it
    patch: int = 12
    tower_width: int = 64
    tower_layers: int = 4
    tower_steps: int = 1000
    tower_batch: int = 64
    tower_lr: float = 2e-3
    augment: bool = False  # shifts, brightness, contrast: for packs with few real photos
    flip: bool = False
    teacher: LanguageModel = LanguageModel(128, 3, 320)
    teacher_steps: int = 2500
    student: LanguageModel = LanguageModel(64, 3, 192)
    student_steps: int = 2000
    batch: int = 32  # pictures
    turns: int = 6  # questions about each
    lr: float = 2e-3
    muon_lr: float = 4e-3
    label_smoothing: float = 0.0
    seed: int = 0


RECIPES: dict[str, Recipe] = {
    "scenes": Recipe(),
    "easyvqa": Recipe(image_side=64, patch=8, tower_steps=700, teacher_steps=1200, student_steps=800),
    "emoji": Recipe(image_side=48, patch=6, tower_steps=3000, teacher_steps=2500, student_steps=1200, augment=True),
    "signdigits": Recipe(image_side=64, patch=8, tower_steps=3000, teacher_steps=1000, student_steps=600, augment=True),
}
"""By pack name; any other pack uses `Recipe()`."""


# --- checkpoints of a stage -------------------------------------------------------------------------------------


def _save(path: Path, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, str]) -> None:
    part = path.with_suffix(".part")
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, str(part), dict(meta))
    part.replace(path)


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(str(path), "pt") as f:
        return {k: f.get_tensor(k) for k in f.keys()}, dict(f.metadata() or {})  # noqa: SIM118


def _optimizers(params: Mapping[str, nn.Parameter], recipe: Recipe, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of transformer blocks, AdamW for all else.

    With Muon the language models leave question-only accuracy after about 250 steps, with AdamW alone after about 700.
    """
    blocks = [p for name, p in params.items() if p.ndim == 2 and ".layers." in name]
    inside = {id(p) for p in blocks}
    rest = [p for p in params.values() if id(p) not in inside]
    return [torch.optim.Muon(blocks, lr=recipe.muon_lr, weight_decay=0.02, momentum=0.95,
                             adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=lr, weight_decay=0.01, betas=(0.9, 0.98))]


def optimise(name: str, module: nn.Module, loss_of: Callable[[int], torch.Tensor], steps: int, lr: float,
             recipe: Recipe, folder: Path, fingerprint: str, progress: Progress | None) -> None:
    """Warm-up and cosine decay; `loss_of(step)` must be a pure function of the step and the weights.

    The state is saved every minute and at the end in `folder/<name>.safetensors`; an interrupted stage goes on
    from there, a finished one is only loaded. A stage of another `fingerprint` starts afresh.
    """
    path = folder / f"{name}.safetensors"
    params = dict(module.named_parameters())
    optimizers = _optimizers(params, recipe, lr)
    rates = [group["lr"] for o in optimizers for group in o.param_groups]
    owner = {id(p): o for o in optimizers for group in o.param_groups for p in group["params"]}
    start = 0
    if path.is_file():
        tensors, meta = _read(path)
        if meta.get("fingerprint") == fingerprint:
            start = int(meta["step"])
            with torch.no_grad():
                for key, p in params.items():
                    p.copy_(tensors[f"weight/{key}"])
            for entry, tensor in tensors.items():
                kind, _, key = entry.partition("/")
                if kind != "weight":
                    owner[id(params[key])].state[params[key]][kind] = tensor
    saved = time.monotonic()
    for step in range(start, steps):
        share = min(1.0, (step + 1) / (0.05 * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for rate, group in zip(rates, (g for o in optimizers for g in o.param_groups), strict=True):
            group["lr"] = rate * share
        loss = loss_of(step)
        for o in optimizers:
            o.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(params.values(), 1.0)
        for o in optimizers:
            o.step()
        if progress and (step % 20 == 19 or step == steps - 1):
            progress(f"{name} (loss {loss.item():.3f})", step + 1, steps)
        if step == steps - 1 or time.monotonic() - saved > 60:
            state = {f"weight/{k}": p for k, p in params.items()}
            if step < steps - 1:
                state |= {f"{kind}/{k}": v for k, p in params.items() for kind, v in owner[id(p)].state.get(p, {}).items()}
            _save(path, state, {"step": str(step + 1), "fingerprint": fingerprint})
            saved = time.monotonic()


# --- stage 1: tower --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Targets:
    """What the tower learns: regions (a picture, weights over its N tokens) and per region groups of names."""

    names: list[str]
    image: np.ndarray  # (R,) picture row
    pool: np.ndarray  # (R, N) float32, rows sum to 1
    label: np.ndarray  # (R, A) float32 in 0..1
    known: np.ndarray  # (R, A) bool: names that are judged for this region


def _box_pool(box: tuple[float, ...], grid: int) -> np.ndarray:
    """Share of each token's patch inside a box of fractions x0, y0, x1, y1: (grid * grid,), sums to 1."""
    edge = np.arange(grid)
    x0, y0, x1, y1 = (v * grid for v in box)
    wx = np.clip(np.minimum(edge + 1, x1) - np.maximum(edge, x0), 0, 1)
    wy = np.clip(np.minimum(edge + 1, y1) - np.maximum(edge, y0), 0, 1)
    weights = np.outer(wy, wx).ravel()
    return weights / max(weights.sum(), 1e-9)


def targets(frame: pd.DataFrame, image_ids: list[str], grid: int, min_count: int = 30) -> Targets:
    """Tower targets of a pack's training frame; see the module text."""
    row_of = {image_id: i for i, image_id in enumerate(image_ids)}
    regions: dict[tuple[int, str], dict[str, float]] = {}
    if "attributes" in frame.columns:
        firsts = frame.drop_duplicates("image_id")
        for image_id, listed in zip(firsts["image_id"], firsts["attributes"], strict=True):
            for entry in filter(None, str(listed).split(";")):
                name, _, box = entry.partition("@")
                regions.setdefault((row_of[image_id], box), {})[name] = 1.0
        closed = True
    else:
        closed = False
        counts = frame["question"].value_counts()
        frequent = set(counts[counts >= min_count].index)
        answers = frame[frame["question"].isin(frequent)].groupby("question")["answer"].unique()
        extra = [c for c in frame.columns if c not in packs.COLUMNS and frame[c].astype(str).nunique() <= 5000
                 and frame.groupby("image_id")[c].nunique().max() == 1]
        for row in frame.itertuples():
            entry = regions.setdefault((row_of[row.image_id], ""), {})
            if row.question in frequent:
                for a in answers[row.question]:
                    entry[f"{row.question}={a}"] = float(a == row.answer)
            for c in extra:
                entry[f"{c}={getattr(row, c)}"] = 1.0
        classes = {c: sorted({f"{c}={v}" for v in frame[c].astype(str)}) for c in extra}
    names = sorted({n for entry in regions.values() for n in entry})
    index = {n: i for i, n in enumerate(names)}
    label = np.zeros((len(regions), len(names)), np.float32)
    known = np.full((len(regions), len(names)), closed)
    pool = np.empty((len(regions), grid * grid), np.float32)
    for r, ((_, box), entry) in enumerate(regions.items()):
        where = [index[n] for n in entry]
        label[r, where] = list(entry.values())
        known[r, where] = True
        pool[r] = _box_pool(tuple(map(float, box.split(","))), grid) if box else 1 / grid**2
    if not closed:
        for group in classes.values():
            known[:, [index[n] for n in group]] = True
    return Targets(names, np.array([i for i, _ in regions], np.int64), pool, label, known)


def _pixels(images: Mapping[str, bytes], ids: list[str], side: int) -> torch.Tensor:
    """(M, 3, side, side) uint8."""
    out = np.empty((len(ids), side, side, 3), np.uint8)
    for i, image_id in enumerate(ids):
        with Image.open(io.BytesIO(images[image_id])) as im:
            out[i] = np.asarray(im.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def _augment(x: torch.Tensor, rng: np.random.Generator, flip: bool) -> torch.Tensor:
    """Random shift by up to an eighth, brightness and contrast, optional mirror; x (B, 3, S, S) float in -1..1."""
    b, _, side, _ = x.shape
    reach = side // 8
    padded = nn.functional.pad(x, (reach,) * 4, mode="replicate")
    dy, dx = rng.integers(0, 2 * reach + 1, (2, b))
    x = torch.stack([padded[i, :, dy[i]:dy[i] + side, dx[i]:dx[i] + side] for i in range(b)])
    gain, bias = (torch.from_numpy(rng.normal(m, 0.15, (b, 1, 1, 1))).float() for m in (1.0, 0.0))
    x = x * gain + bias
    if flip:
        mirror = torch.from_numpy(rng.random(b) < 0.5)
        x = torch.where(mirror[:, None, None, None], x.flip(-1), x)
    return x


def _vision_config(recipe: Recipe) -> CLIPVisionConfig:
    d = recipe.tower_width
    return CLIPVisionConfig(hidden_size=d, intermediate_size=3 * d, num_hidden_layers=recipe.tower_layers,
                            num_attention_heads=4, image_size=recipe.image_side, patch_size=recipe.patch,
                            projection_dim=d)


def _wide_init(model: nn.Module, std: float = 0.05) -> None:
    """Hugging Face's 0.02 is for wide models; at width 64 it starts too close to zero."""
    for m in model.modules():
        if isinstance(m, nn.Linear):
            nn.init.trunc_normal_(m.weight, std=std)


def train_tower(pack: packs.Pack, recipe: Recipe, folder: Path, fingerprint: str, progress: Progress | None) -> CLIPVisionModel:
    torch.manual_seed(recipe.seed)
    tower = CLIPVisionModel(_vision_config(recipe))
    _wide_init(tower)
    ids = list(pack.train_images)
    goal = targets(pack.train, ids, recipe.image_side // recipe.patch)
    head = nn.Sequential(nn.LayerNorm(recipe.tower_width), nn.Linear(recipe.tower_width, len(goal.names)))
    rows_of = [[] for _ in ids]
    for r, i in enumerate(goal.image):
        rows_of[i].append(r)
    pixels = _pixels(pack.train_images, ids, recipe.image_side)
    pool, label = torch.from_numpy(goal.pool), torch.from_numpy(goal.label)
    known = torch.from_numpy(goal.known)

    def loss_of(step: int) -> torch.Tensor:
        rng = np.random.default_rng([recipe.seed, 1, step])
        picked = rng.integers(0, len(ids), recipe.tower_batch)
        x = pixels[picked].float() / 127.5 - 1
        if recipe.augment:
            x = _augment(x, rng, recipe.flip)
        tokens = tower(x, output_hidden_states=True).hidden_states[-1][:, 1:]
        rows = np.concatenate([rows_of[i] for i in picked]).astype(np.int64)
        owner = np.repeat(np.arange(len(picked)), [len(rows_of[i]) for i in picked])
        logits = head(torch.einsum("rn,rnd->rd", pool[rows], tokens[owner]))
        bce = nn.functional.binary_cross_entropy_with_logits(logits, label[rows], reduction="none")
        judged = known[rows]
        return (bce * judged).sum() / len(rows)

    both = nn.ModuleDict({"tower": tower, "head": head})
    optimise("tower", both, loss_of, recipe.tower_steps, recipe.tower_lr, recipe, folder, fingerprint, progress)
    return tower.requires_grad_(False).eval()


# --- stages 2 and 3: language models -----------------------------------------------------------------------------


def make_tokenizer(frame: pd.DataFrame) -> PreTrainedTokenizerFast:
    """One word, one id: lower case, split at spaces and punctuation; built from the training text of all domains."""
    pre = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    texts = pd.concat([frame["question"], frame["answer"]]).str.lower().str.replace("?", "")
    words = {w for text in texts.unique()
             for w, _ in pre.pre_tokenize_str(text)}
    vocab = {w: i for i, w in enumerate(["<pad>", "<s>", "</s>", "<unk>", "<image>", *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))  # noqa: S106
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace("?", "")])
    tokenizer.pre_tokenizer = pre
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>",  # noqa: S106
                                   eos_token="</s>", unk_token="<unk>",  # noqa: S106
                                   additional_special_tokens=["<image>"], clean_up_tokenization_spaces=False)


def make_llava(tower: CLIPVisionModel, lm: LanguageModel, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlavaForConditionalGeneration:
    """An untrained LLaVA around a trained tower."""
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=LlamaConfig(
            vocab_size=-(-len(tokenizer) // 8) * 8, hidden_size=lm.hidden, intermediate_size=lm.intermediate,
            num_hidden_layers=lm.layers, num_attention_heads=lm.heads, num_key_value_heads=lm.heads,
            max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
        image_token_index=4, vision_feature_layer=-1, vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    _wide_init(model, 0.06)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.vision_tower.requires_grad_(False)
    return model


def _centre(model: LlavaForConditionalGeneration, tokens: np.ndarray, seed: int) -> None:
    """Start the projector at whitened tokens, the word embeddings at the same scale.

    A tower's output varies a hundred times more along some directions than along others, and what tells shapes apart is among the
    weak ones; from a plain start the language model stays at question-only accuracy for thousands of steps.
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
        projector.linear_2.weight.normal_(std=1.4 / projector.linear_2.in_features ** 0.5, generator=generator)
        model.model.language_model.embed_tokens.weight.normal_(std=0.7, generator=generator)


@dataclass(frozen=True)
class Turns:
    """Several questions about each picture in one sequence, none of which sees another."""

    inputs: vlm.Inputs  # text_ids: the turns one after the other
    labels: torch.Tensor  # (B, T) int64, -100 where nothing is asked
    turn: torch.Tensor  # (B, T) int64, which turn a text position belongs to
    place: torch.Tensor  # (B, T) int64, position within the turn


def collate_turns(text: vlm.Text, tokens: list[np.ndarray], kept: list[np.ndarray],
                  turns: list[list[tuple[list[int], list[int]]]]) -> Turns:
    """Pad pictures with their (question ids, answer ids) lists."""
    rows = [[q + a + [text.eos] for q, a in picture] for picture in turns]
    inputs = vlm.collate(text, tokens, [sum(row, []) for row in rows], None, kept)
    labels, turn = torch.full_like(inputs.text_ids, -100), torch.zeros_like(inputs.text_ids)
    place = torch.zeros_like(inputs.text_ids)
    for i, (picture, row) in enumerate(zip(turns, rows, strict=True)):
        start = 0
        for t, ((question, _), ids) in enumerate(zip(picture, row, strict=True)):
            end = start + len(ids)
            labels[i, start + len(question):end] = torch.tensor(ids[len(question):])
            turn[i, start:end] = t
            place[i, start:end] = torch.arange(len(ids))
            start = end
    return Turns(inputs, labels, turn, place)


def turns_loss(model: nn.Module, text: vlm.Text, batch: Turns, smoothing: float) -> torch.Tensor:
    """Cross entropy of all answers: each question sees the picture and itself, at the positions it would have alone."""
    _, lm, head = vlm.parts(model)
    embeds, position_ids, mask = vlm.embed(model, text, batch.inputs)
    b, size = mask.shape
    first = size - batch.turn.shape[1]
    position_ids = position_ids.clone()
    position_ids[:, first:] = len(text.prefix_ids) + text.n_tokens + batch.place
    turn = torch.cat([torch.full((b, first), -1), batch.turn], 1)
    seen = torch.ones(size, size, dtype=torch.bool).tril()[None] & mask[:, None]
    seen &= (turn[:, None] == -1) | (turn[:, :, None] == turn[:, None])
    seen |= torch.eye(size, dtype=torch.bool)[None]  # a padding row must see something
    bias = torch.where(seen, 0.0, torch.finfo(embeds.dtype).min)[:, None]
    hidden = lm(inputs_embeds=embeds, position_ids=position_ids, attention_mask=bias, use_cache=False).last_hidden_state
    asked = batch.labels != -100
    logits = head(hidden[:, first - 1:-1][asked])
    return nn.functional.cross_entropy(logits, batch.labels[asked], label_smoothing=smoothing)


def train_language(name: str, model: LlavaForConditionalGeneration, text: vlm.Text, frame: pd.DataFrame,
                   tokens: np.ndarray, steps: int, recipe: Recipe, folder: Path, fingerprint: str,
                   progress: Progress | None) -> None:
    """Projector and language model on `frame` (columns question, answer, image_row) and tokens (M, N, D).

    A step reads `recipe.batch` pictures with up to `recipe.turns` questions each. Three batches in four hold a quarter to five eighths
    of each picture's tokens, at random; the fourth all of them.
    """
    questions = [text.question_ids(q) for q in frame["question"]]
    answers = [text.answer_ids(a) for a in frame["answer"]]
    rows_of = frame.reset_index(drop=True).groupby("image_row").indices
    pictures = np.array(sorted(rows_of))
    n = text.n_tokens
    _centre(model, tokens, recipe.seed)
    trained = nn.ModuleDict({"projector": model.model.multi_modal_projector, "lm": model.model.language_model,
                             "head": model.lm_head})

    def loss_of(step: int) -> torch.Tensor:
        rng = np.random.default_rng([recipe.seed, 2, step])
        picked = pictures[rng.integers(len(pictures), size=recipe.batch)]
        k = n if step % 4 == 0 else int(rng.integers(n // 4, 5 * n // 8 + 1))
        kept = [np.sort(rng.permutation(n)[:k]) for _ in picked]
        turns = [[(questions[r], answers[r]) for r in rng.permutation(rows_of[i])[:recipe.turns]] for i in picked]
        batch = collate_turns(text, [tokens[i][p] for i, p in zip(picked, kept, strict=True)], kept, turns)
        return turns_loss(model, text, batch, recipe.label_smoothing)

    model.train()
    optimise(name, trained, loss_of, steps, recipe.lr, recipe, folder, fingerprint, progress)
    model.eval()


def accuracy(model: nn.Module, text: vlm.Text, frame: pd.DataFrame, tokens: np.ndarray, by: str = "drift_domain",
             kept: int | None = None, limit: int = 2000) -> dict[str, float]:
    """Share of greedily answered questions per value of a column; `kept` random tokens a picture, None = all."""
    frame = frame.iloc[np.random.default_rng(0).permutation(len(frame))[:limit]]
    rng, right = np.random.default_rng(1), []
    for i in range(0, len(frame), 128):
        rows = frame.iloc[i:i + 128]
        spots = [np.sort(rng.permutation(text.n_tokens)[:kept or text.n_tokens]) for _ in range(len(rows))]
        inputs = vlm.collate(text, [tokens[r][s] for r, s in zip(rows["image_row"], spots, strict=True)],
                             [text.question_ids(q) for q in rows["question"]],
                             [text.answer_ids(a) for a in rows["answer"]], spots)
        right.append(vlm.correct(model, text, inputs))
    return pd.Series(np.concatenate(right)).groupby(frame[by].to_numpy()).mean().round(4).to_dict()


# --- the whole ------------------------------------------------------------------------------------------------


def _write_checkpoint(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, side: int, folder: Path) -> None:
    """An ordinary Hugging Face checkpoint in float16."""
    model.half().save_pretrained(folder)
    model.float()
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"height": side, "width": side}, crop_size={"height": side, "width": side},
                       do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(folder)


def pretrain(config: Config, out: Path, recipe: Recipe | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Train a pair for `config.data` into the folder `out`; returns its card (also `out/pair.json`).

    Run it again to resume; stages of the same pack and recipe are not repeated.

    Raises:
        ConfigError: pictures that cannot be cut into patches, or a pack without source samples.
    """
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    started = time.monotonic()
    pack = packs.load(config.data)
    recipe = recipe or RECIPES.get(pack.name, Recipe())
    if recipe.image_side % recipe.patch:
        raise ConfigError(f"recipe: image side {recipe.image_side} is not a multiple of the patch {recipe.patch}")
    stages = out / "stages"
    stages.mkdir(parents=True, exist_ok=True)
    known = {k: getattr(config.data, k) for k in ("style_column", "known_styles", "object_column", "known_objects",
                                                  "known_questions")}
    fingerprint = json.dumps([pack.digest, dataclasses.asdict(recipe), known])
    seconds: dict[str, float] = {}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        t = time.monotonic()
        result = work()
        seconds[stage] = round(time.monotonic() - t, 1)
        return result

    tower = timed("tower", lambda: train_tower(pack, recipe, stages, fingerprint, progress))
    frames, tokens = {}, {}
    for split, frame, images in (("train", pack.train, pack.train_images), ("test", pack.test, pack.test_images)):
        ids = list(images)
        row_of = {image_id: i for i, image_id in enumerate(ids)}
        frames[split] = frame.assign(drift_domain=stream.domains(frame, config.data, pack.train),
                                     image_row=frame["image_id"].map(row_of))
        pixels = _pixels(images, ids, recipe.image_side)
        with torch.no_grad():
            tokens[split] = np.concatenate([
                tower(pixels[i:i + 128].float() / 127.5 - 1, output_hidden_states=True).hidden_states[-1][:, 1:]
                .half().numpy() for i in range(0, len(ids), 128)])
    source = frames["train"][frames["train"]["drift_domain"] == "source"]
    if source.empty:
        raise ConfigError("no training sample is of the source domain; check known-styles, known-objects, known-questions")
    tokenizer = make_tokenizer(frames["train"])
    text = vlm.Text(tokenizer, "", SUFFIX, (recipe.image_side // recipe.patch) ** 2)
    made, scores = {}, {}
    for role, lm, steps, rows in (("teacher", recipe.teacher, recipe.teacher_steps, frames["train"]),
                                  ("student", recipe.student, recipe.student_steps, source)):
        made[role] = make_llava(tower, lm, tokenizer, recipe.seed)
        timed(role, lambda role=role, steps=steps, rows=rows: train_language(
            role, made[role], text, rows, tokens["train"], steps, recipe, stages, fingerprint, progress))
        _write_checkpoint(made[role], tokenizer, recipe.image_side, out / role)
        scores[role] = {"by_domain": accuracy(made[role], text, frames["test"], tokens["test"]),
                        "by_qtype": accuracy(made[role], text, frames["test"], tokens["test"], "qtype"),
                        "quarter_of_tokens": accuracy(made[role], text, frames["test"], tokens["test"],
                                                      kept=text.n_tokens // 4)}
    count = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    card = {
        "format": 1, "name": pack.name, "prompt_prefix": "", "prompt_suffix": SUFFIX,
        "digest": pairs.weights_digest(out / "teacher", out / "student"), "data": pack.digest, "known": known,
        "recipe": dataclasses.asdict(recipe), "scores": scores, "seconds": seconds,
        "parameters": {"tower": count(tower)} | {r: count(m) - count(tower) for r, m in made.items()},
    }
    (out / "pair.json").write_text(json.dumps(card, indent=1) + "\n")
    if progress:
        progress(f"pair ready in {time.monotonic() - started:.0f} s", 1, 1)
    return card
