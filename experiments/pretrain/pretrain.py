"""Make a pair for any pack: tower, teacher, student, in three stages, resumable.

1. *tower* (`pretrain.tower`): a small CLIP vision model learns the pack's attributes, on all training
   pictures. It is then frozen and run once over the pack.
2. *teacher* (`pretrain.language`): projector and language model on the tower's outputs, all domains.
3. *student*: a smaller language model, source domain only: what "the device was shipped with" means.

In one joint run from scratch such small models stay at question-only accuracy; in three stages each takes
minutes on two cores. Both language models see pictures with random tokens missing, as a model that shall read
a device's selection must.
The result is a pair folder of two ordinary Hugging Face LLaVA checkpoints; see `cdc_flower.models.folders`.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPImageProcessorPil, LlavaForConditionalGeneration, PreTrainedTokenizerFast
from transformers.utils import logging as hf_logging

from cdc_flower import results
from cdc_flower.config import Config, ConfigError
from cdc_flower.data import packs
from cdc_flower.data.domains import domains
from cdc_flower.lock import locked
from cdc_flower.models import folders, transform, vlm
from cdc_flower.models.families import FAMILIES
from cdc_flower.models.shared import tower_digest
from experiments.pretrain.language import accuracy, make_llava, make_tokenizer, train_language
from experiments.pretrain.optimise import Progress, saving
from experiments.pretrain.recipes import RECIPES, LanguageModel, Recipe
from experiments.pretrain.tower import pixels_of, targets, train_tower

__all__ = ["RECIPES", "LanguageModel", "Recipe", "pretrain"]


def _write_checkpoint(
    model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, side: int, folder: Path
) -> None:
    """An ordinary Hugging Face checkpoint in float16."""
    model.half().save_pretrained(folder)
    model.float()
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"height": side, "width": side},
        crop_size={"height": side, "width": side},
        do_center_crop=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(folder)


def pretrain(
    config: Config, out: Path, recipe: Recipe | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Train a pair for `config.data` into the folder `out`; returns its card (also `out/pair.json`).

    Run it again to resume; stages of the same pack and recipe are not repeated.

    Raises:
        ConfigError: pictures that cannot be cut into patches, a pack without source samples, or a folder in
            which another training is going on.
    """
    with locked(out):
        return _pretrain(config, out, recipe, progress)


def _pretrain(config: Config, out: Path, recipe: Recipe | None, progress: Progress | None) -> dict[str, Any]:
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    started = time.monotonic()
    recipe = recipe or RECIPES.get(config.data.name, Recipe())
    pack = packs.load(dataclasses.replace(config.data, scenes_train=recipe.pictures))
    if recipe.image_side % recipe.patch:
        raise ConfigError(
            f"recipe: image side {recipe.image_side}; allowed: a multiple of the patch, {recipe.patch}"
        )
    stages = out / "stages"
    with saving(stages):
        stages.mkdir(parents=True, exist_ok=True)
    known = {
        k: getattr(config.data, k)
        for k in ("style_column", "known_styles", "object_column", "known_objects", "known_questions")
    }
    settings = dataclasses.asdict(recipe)
    of_tower = ("tower", "image", "patch", "augment", "flip", "muon", "seed")
    base = {k: v for k, v in settings.items() if k.startswith(of_tower)}
    shared = {k: v for k, v in settings.items() if not k.startswith(("teacher", "student"))}

    def fingerprint(role: str) -> str:
        """What a stage's weights depend on."""
        own = {k: v for k, v in settings.items() if k.startswith(role)}
        rest = base if role == "tower" else [shared, own, known if role == "student" else None]
        return json.dumps([pack.digest, rest])

    seconds: dict[str, float] = {}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        t = time.monotonic()
        result = work()
        seconds[stage] = round(time.monotonic() - t, 1)
        return result

    tower = timed("tower", lambda: train_tower(pack, recipe, stages, fingerprint("tower"), progress))
    frames, tokens = {}, {}
    splits = (("train", pack.train, pack.train_images), ("test", pack.test, pack.test_images))
    for split, frame, images in splits:
        ids = list(images)
        row_of = {image_id: i for i, image_id in enumerate(ids)}
        frames[split] = frame.assign(
            drift_domain=domains(frame, config.data, pack.train), image_row=frame["image_id"].map(row_of)
        )
        pixels = pixels_of(images, ids, recipe.image_side)
        with torch.no_grad():
            states = [
                tower(x.float() / 127.5 - 1, output_hidden_states=True).hidden_states[-1][:, 1:].half()
                for x in pixels.split(128)
            ]
        tokens[split] = torch.cat(states).numpy()
    source = frames["train"][frames["train"]["drift_domain"] == "source"]
    if source.empty:
        raise ConfigError(
            "no training sample is of the source domain; check known-styles, known-objects, known-questions"
        )
    tokenizer = make_tokenizer(frames["train"])
    (out / "pair.json").unlink(missing_ok=True)  # the card of other weights
    goal = targets(pack.train, list(pack.train_images), recipe.image_side // recipe.patch)
    made, scores = {}, {}
    for role, lm, steps, rows in (
        ("teacher", recipe.teacher, recipe.teacher_steps, frames["train"]),
        ("student", recipe.student, recipe.student_steps, source),
    ):
        made[role] = make_llava(tower, lm, tokenizer, recipe.seed)
        end: Any = tokenizer.eos_token_id
        text = vlm.Text(tokenizer, FAMILIES["llava"], made[role].config, (end,))
        timed(
            role,
            lambda role=role, text=text, steps=steps, rows=rows: train_language(
                role,
                made[role],
                text,
                goal,
                rows,
                tokens["train"],
                steps,
                recipe,
                stages,
                fingerprint(role),
                progress,
            ),
        )
        with saving(out / role):
            _write_checkpoint(made[role], tokenizer, recipe.image_side, out / role)
        test = (made[role], text, frames["test"], tokens["test"])
        scores[role] = {
            "by_domain": accuracy(*test),
            "by_qtype": accuracy(*test, by="qtype"),
            "quarter_of_tokens": accuracy(*test, kept=tokens["train"].shape[1] // 4),
        }
    pictures = tokens["train"][np.unique(source["image_row"])]
    turn = transform.estimate(pictures)
    with saving(out):
        transform.save(turn, out, tower_digest(made["student"].model.vision_tower, made["student"].config))
    count = {r: sum(p.numel() for p in m.parameters()) for r, m in {"tower": tower, **made}.items()}
    card = {
        "format": 1,
        "name": pack.name,
        "data": pack.digest,
        "digest": folders.weights_digest(out / "teacher", out / "student", turn=turn),
        "known": known,
        "recipe": dataclasses.asdict(recipe),
        "scores": scores,
        "seconds": seconds,
        "parameters": {r: n - (r != "tower") * count["tower"] for r, n in count.items()},
    }
    results.write_json(out / "pair.json", card)
    if progress:
        progress(f"pair ready in {time.monotonic() - started:.0f} s", 1, 1)
    return card
