"""Whose shapes devices are charged for: the setting `fleet.cost-model`.

A simulation on one machine answers with a model of a million weights, while the devices it speaks of would
run one of billions. Seconds, joules and memory depend on shapes alone, so they may be those of another
model: what a device does stays the small student's work, what it costs is the other's. `models.json` beside
this module holds the configs that `roofline.shapes` reads, each with its source. A cost model is what a
deployment would run, so its tower is in float16; the student's own is in float32, as it runs here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdc_flower.config import ConfigError
from cdc_flower.fleet.cost import roofline
from cdc_flower.fleet.cost.profiles import Profile
from cdc_flower.fleet.cost.roofline import Shapes

TABLE = Path(__file__).with_name("models.json")
TEXT = 50  # positions of a prompt around the picture and of its question, where a table needs a number
HALF = 2  # bytes of a weight of the tower that a deployment runs
ANSWER = 8  # tokens of an answer, its end among them


def table() -> dict[str, dict[str, Any]]:
    """Name -> excerpt of a LLaVA `config.json`, with a field `source`."""
    return json.loads(TABLE.read_text(encoding="utf-8"))


def load(name: str, own: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config whose shapes are charged.

    Args:
        name: "" = the student's own, a name of `table`, or the path of a Hugging Face LLaVA `config.json`.
        own: the student's, `pair.student.config.to_dict()`.

    Returns:
        What `roofline.shapes` reads.

    Raises:
        ConfigError: no such name or file, or a file that is no LLaVA config.
    """
    if not name:
        return own
    known = table()
    if name in known:
        return known[name]
    refused = f"setting 'fleet.cost-model' = {name!r}"
    allowed = f"allowed: '' (the student's own), {', '.join(known)}, or the path of a LLaVA config.json"
    if not name.endswith(".json"):
        raise ConfigError(f"{refused}; {allowed}")
    try:
        content = json.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as err:
        raise ConfigError(f"{refused} cannot be read: {err.strerror}; {allowed}") from None
    except (ValueError, RecursionError) as err:
        raise ConfigError(f"{refused} is no JSON: {err}; {allowed}") from None
    kind = content.get("model_type") if isinstance(content, dict) else None
    if kind != "llava":
        raise ConfigError(f"{refused} is of model type {kind!r}; {allowed}")
    from huggingface_hub.errors import StrictDataclassError
    from transformers import LlavaConfig  # here: a config.json leaves out what is a default of the classes

    try:
        found = {**LlavaConfig.from_dict(content).to_dict(), "tower_bytes": HALF}
    except (StrictDataclassError, AttributeError, TypeError, ValueError, KeyError) as err:
        why = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise ConfigError(f"{refused} cannot be read as a LLaVA config ({why}); {allowed}") from None
    try:
        roofline.shapes(found, 0)
    except ConfigError as err:
        raise ConfigError(f"{refused}: {err}") from None
    return found


@dataclass(frozen=True)
class Cost:
    """What answering one question costs a device.

    Attributes:
        compression: the least that fits the device's RAM.
        seconds: tower, prefill and the further tokens.
        joules: of the whole device meanwhile.
    """

    compression: str
    seconds: float
    joules: float


def of_a_question(profile: Profile, shapes: Shapes, text: int = TEXT, answer: int = ANSWER) -> Cost | None:
    """The cost of one question about a complete picture; None where the model fits in no compression.

    Args:
        text: positions besides the picture's.
        answer: tokens of the answer.
    """
    length = shapes.patches + text
    try:
        compression = roofline.compression_for(profile, shapes, length + answer)
    except ConfigError:
        return None
    passes = roofline.answering(shapes, compression, length, shapes.patches, answer)
    seconds = float(roofline.work_seconds(profile, passes))
    return Cost(compression, seconds, float(roofline.joules(profile, computing=seconds)))
