"""Make a pair for any pack: tower, teacher, student, in three stages, resumable.

1. *tower* (`pretrain.tower`): a small CLIP vision model learns the pack's attributes. It is then frozen and
   run once over the pictures.
2. *teacher* (`pretrain.language`): projector and language model on the tower's outputs, all domains.
3. *student*: a smaller language model, source domain only: what "the device was shipped with" means.

In one joint run from scratch such small models stay at question-only accuracy; in three stages each takes
minutes on two cores. Both language models see pictures with random tokens missing, as a model that shall read
a device's selection must.

All three see the training part of A alone (`pretrain.material`), and of the states of a stage the one with
the lowest loss on A's validation part is kept. The result is a pair folder of two ordinary Hugging Face LLaVA
checkpoints; see `cdc_flower.models.folders`.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from transformers import CLIPImageProcessorPil, LlavaForConditionalGeneration, PreTrainedTokenizerFast
from transformers.utils import logging as hf_logging

from cdc_flower import results
from cdc_flower.config import Config, ConfigError
from cdc_flower.data import splits
from cdc_flower.data.packs import CAPTION
from cdc_flower.lock import locked
from cdc_flower.models import folders, placement, retrieval, transform, vlm
from cdc_flower.models.families import FAMILIES
from cdc_flower.models.retrieval import Head
from cdc_flower.models.shared import tower_digest
from experiments.pretrain.language import make_llava, make_tokenizer, retrieved, scores, train_language
from experiments.pretrain.material import Material, material
from experiments.pretrain.optimise import Progress, done_before, saving
from experiments.pretrain.recipes import RECIPES, STAGES, LanguageModel, Recipe, shares
from experiments.pretrain.tower import train_tower

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


def scored(
    model: LlavaForConditionalGeneration,
    text: vlm.Text,
    data: Material,
    tokens: Mapping[str, np.ndarray],
    head: Head | None,
) -> dict[str, Any]:
    """What a card says of a model's accuracy on rows that it was not trained on."""
    found: dict[str, Any] = {}
    for name in (splits.CHECKED, splits.B, splits.C):
        frame = data.parts[name].frame
        found[name] = scores(model, text, frame, tokens[name])
        if head is not None:
            found[name]["retrieval"] = retrieved(model, text, head, frame, tokens[name])
    return found


def pretrain(
    config: Config,
    out: Path,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train a pair for `config.data` into the folder `out`; returns its card (also `out/pair.json`).

    Run it again to resume; stages of the same pack and recipe are not repeated. `say` gets a line before each
    stage.

    Raises:
        ConfigError: pictures that cannot be cut into patches, a pack without source samples, or a folder in
            which another training is going on.
    """
    with locked(out), placement.exact():
        return _pretrain(config, out, recipe, progress, say)


def _pretrain(
    config: Config, out: Path, recipe: Recipe | None, progress: Progress | None, say: Callable[[str], None]
) -> dict[str, Any]:
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    started = time.monotonic()
    recipe = recipe or RECIPES.get(config.data.name, Recipe())
    if recipe.image_side % recipe.patch:
        raise ConfigError(
            f"recipe: image side {recipe.image_side}; allowed: a multiple of the patch, {recipe.patch}"
        )
    data = material(config, recipe)
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
        digests = [data.split["parts"][name]["digest"] for name in (splits.A, splits.CHECKED)]
        return json.dumps([data.digest, digests, rest, *([data.frames] if data.frames else [])])

    seconds: dict[str, float] = {}
    stopped: dict[str, dict[str, float]] = {}

    say(f"stages are kept in {stages}, each of them every minute")

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        number = f"stage {list(STAGES).index(stage) + 1} of {len(STAGES)}"
        steps = settings[f"{stage}_steps"]
        done = min(done_before(stages, stage, fingerprint(stage)), steps)
        before = f", {'all' if done == steps else f'{done:,}'} of them done before" if done else ""
        say(f"{number}: {stage}, {STAGES[stage]}; {steps:,} steps{before}")
        if progress:
            progress(f"{stage}: reads its samples", done, steps)
        t = time.monotonic()
        result = work()
        seconds[stage] = round(time.monotonic() - t, 1)
        return result

    taught, checked = data.parts[splits.A], data.parts[splits.CHECKED]
    tower, goal, stopped["tower"] = timed(
        "tower",
        lambda: train_tower(data.name, taught, checked, recipe, stages, fingerprint("tower"), progress),
    )
    tokens = {name: part.tokens(tower, recipe.image_side) for name, part in data.parts.items()}
    tokenizer = make_tokenizer(taught.frame, data.frames)
    (out / "pair.json").unlink(missing_ok=True)  # the card of other weights
    made, found, head = {}, {}, None
    for role, lm, steps, rows, aside in (
        ("teacher", recipe.teacher, recipe.teacher_steps, taught.frame, checked.frame),
        ("student", recipe.student, recipe.student_steps, taught.source, checked.source),
    ):
        made[role] = make_llava(tower, lm, tokenizer, recipe.seed, data.frames)
        end: Any = tokenizer.eos_token_id
        text = vlm.Text(tokenizer, FAMILIES["llava"], made[role].config, (end,), data.frames)
        if role == "student" and data.frames and (rows["qtype"] == CAPTION).any():
            head = Head(lm.hidden)
        stopped[role] = timed(
            role,
            lambda role=role, text=text, steps=steps, rows=rows, aside=aside, head=head: train_language(
                role,
                made[role],
                text,
                goal,
                rows,
                tokens[splits.A],
                (aside, tokens[splits.CHECKED]),
                steps,
                recipe,
                stages,
                fingerprint(role),
                progress,
                head,
            ),
        )
        with saving(out / role):
            _write_checkpoint(made[role], tokenizer, recipe.image_side, out / role)
        found[role] = scored(made[role], text, data, tokens, head)
        made[role].cpu()
    pictures = tokens[splits.A][np.unique(taught.source["image_row"])]
    turn = transform.estimate(list(pictures))
    with saving(out):
        transform.save(turn, out, tower_digest(made["student"].model.vision_tower, made["student"].config))
        if head is not None:
            retrieval.save(head, out)
    count = {r: sum(p.numel() for p in m.parameters()) for r, m in {"tower": tower, **made}.items()}
    card = {
        "format": 1,
        "name": data.name,
        "data": data.digest,
        "digest": folders.weights_digest(out / "teacher", out / "student", turn=turn, head=head),
        **({"frames": data.frames} if data.frames else {}),
        "known": known,
        "split": data.split,
        "recipe": dataclasses.asdict(recipe),
        "steps_share": shares(config.data.name, recipe),
        "kept": stopped,  # of each stage the state with the lowest loss on A-validation
        "scores": found,
        "seconds": seconds,
        "parameters": {r: n - (r != "tower") * count["tower"] for r, n in count.items()},
    }
    results.write_json(out / "pair.json", card)
    if progress:
        progress(f"pair ready in {time.monotonic() - started:.0f} s", 1, 1)
    return card
