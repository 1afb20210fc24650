"""Where checkpoints are, what they are known by, and how one is opened.

A *pair folder* is `teacher/` and `student/`, two ordinary Hugging Face checkpoints, and `pair.json` (name,
recipe, scores). Two bare checkpoints, folders or names on the hub, do as well. A checkpoint is opened in one
place, and whole: a tensor that its files lack would otherwise be a random layer that nobody notices.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig
from transformers.utils import logging as hf_logging
from transformers.utils.hub import cached_file

from cdc_flower.border import first_line
from cdc_flower.config import ConfigError
from cdc_flower.data.features import cache_folder
from cdc_flower.digests import known
from cdc_flower.models.transform import BARE, Transform
from cdc_flower.models.undrawn import Undrawn
from cdc_flower.stages import PairConfig

if TYPE_CHECKING:
    from cdc_flower.models.retrieval import Head

WEIGHTS = Path(__file__).parent.parent / "weights"
PACKAGE = "cdc-flower"
NO_CODE = {"trust_remote_code": False}  # left out, transformers asks whoever sits at the terminal


class PairError(ConfigError):
    """No usable pair of models; the message says what is missing or differs."""


@dataclass(frozen=True)
class Paths:
    """Where a pair is: its folder (None for two bare checkpoints), the two checkpoints and the card."""

    folder: Path | None
    teacher: str
    student: str
    card: dict[str, Any]  # pair.json, {} for bare checkpoints

    @property
    def name(self) -> str:
        """The pair's name: the card's, or that of the student."""
        return str(self.card["name"]) if self.card else Path(self.student).name

    @property
    def transforms(self) -> Path:
        """Where the transform of tokens is: in the pair's folder, or in one of its own in the student's."""
        return self.folder or folder_of(self.student) / BARE


def paths(config: PairConfig, data_name: str) -> Paths:
    """The pair that the settings name, or that is found for the data; no weights are opened.

    Raises:
        PairError: nothing found, or only one of two bare checkpoints is set.
    """
    if not (config.teacher or config.student):
        folder = find_pair(config, data_name)
        card = json.loads((folder / "pair.json").read_text(encoding="utf-8"))
        return Paths(folder, str(folder / "teacher"), str(folder / "student"), card)
    if not (config.teacher and config.student):
        raise PairError("settings 'pair.teacher' and 'student' go together; only one of them is set")
    return Paths(None, config.teacher, config.student, {})


def find_pair(config: PairConfig, data_name: str) -> Path:
    """The pair folder: the explicit setting, then the cache folder, then the package.

    A Flower app bundle carries code and JSON but no weights; the card in it names the digest under which
    `install` has put the weights into the cache, or does so now from the installed package.

    Raises:
        PairError: none found; says where it looked.
    """
    if config.folder:
        folder = Path(config.folder)
        if not (folder / "pair.json").is_file():
            raise PairError(
                f"setting 'pair.folder' = '{config.folder}': no pair.json there; "
                "make a pair with `cdc-flower pretrain`"
            )
        return folder
    packaged = WEIGHTS / data_name
    tried = []
    if (packaged / "pair.json").is_file():
        digest = json.loads((packaged / "pair.json").read_text())["digest"]
        tried.append(cache_folder() / "pairs" / f"{data_name}-{digest[:12]}")
    tried += [cache_folder() / "pairs" / data_name, packaged]
    for folder in tried:
        if _has_weights(folder):
            return folder
    found = install(data_name)
    if found is not None and found in tried:
        return found
    raise PairError(
        f"no weights found for '{data_name}'; looked in {', '.join(map(str, tried))}; "
        "train a pair with `cdc-flower pretrain --data DATA`, or set 'pair.folder', or 'pair.teacher' and "
        "'pair.student'"
    )


def install(data_name: str = "scenes") -> Path | None:
    """Copy a packaged pair into the cache folder, where code that runs from an app bundle finds it."""
    source = next((w / data_name for w in (WEIGHTS, _installed()) if _has_weights(w / data_name)), None)
    if source is None:
        return None
    digest = json.loads((source / "pair.json").read_text())["digest"]
    target = cache_folder() / "pairs" / f"{data_name}-{digest[:12]}"
    for file in sorted(p for p in source.rglob("*") if p.is_file()):
        copy = target / file.relative_to(source)
        if not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            part = copy.with_name(f"{copy.name}.{os.getpid()}.part")
            part.write_bytes(file.read_bytes())
            part.replace(copy)
    return target


def _has_weights(folder: Path) -> bool:
    parts = "pair.json", "student/model.safetensors", "student/chat_template.jinja"
    return all((folder / part).is_file() for part in parts)  # copies of older versions have no template


def _installed() -> Path:
    """The weights of the installed package; this file may be a copy without any, in a Flower app."""
    try:
        found = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        return WEIGHTS
    url = json.loads(found.read_text("direct_url.json") or "{}").get("url", "")
    root = url2pathname(urlparse(url).path) if url.startswith("file:") else str(found.locate_file(""))
    return Path(root) / "cdc_flower" / "weights"


def weights_digest(*checkpoints: str | Path, turn: Transform | None = None, head: Head | None = None) -> str:
    """Hash of the safetensors files of checkpoints, in order, and of the transform and the retrieval head
    that go with them; files are read once (`cdc_flower.digests`).

    Raises:
        PairError: a checkpoint has none.
    """
    every: list[Path] = []
    for checkpoint in checkpoints:
        files = sorted(folder_of(checkpoint).glob("*.safetensors"))
        if not files:
            raise PairError(f"'{checkpoint}': no weights in safetensors; allowed: *.safetensors, not *.bin")
        every += files
    last = b"".join(o.digest for o in (turn, head) if o is not None)  # no files: metadata in any order
    return known(every, f"weights {last.hex()}", lambda: _hash(every, last))


def _hash(files: Sequence[Path], last: bytes) -> str:
    h = hashlib.sha256()
    for file in files:
        h.update(file.name.encode())
        with file.open("rb") as opened:
            for block in iter(lambda: opened.read(1 << 22), b""):
                h.update(block)
    h.update(last)
    return h.hexdigest()


def folder_of(checkpoint: str | Path) -> Path:
    """The folder of a checkpoint; of a name on the hub, where its download lies."""
    if Path(checkpoint).is_dir():
        return Path(checkpoint)
    found = cached_file(str(checkpoint), "config.json")
    assert found is not None
    return Path(found).parent


def device_files(config: PairConfig, data_name: str) -> dict[str, tuple[str, dict[str, Path]]]:
    """What a device reads of a pair, nothing of it the teacher's: the setting that says where it is -> the
    name of that folder, and its files by their names in it.
    """
    found = paths(config, data_name)
    student = folder_of(found.student)
    every = {p.relative_to(student).as_posix(): p for p in sorted(student.rglob("*")) if p.is_file()}
    weights = {name: p for name, p in every.items() if "/." not in f"/{name}"}
    if found.folder is None:
        return {"pair.student": (Path(found.student).name, weights)}
    own = {p.name: p for p in found.folder.iterdir() if p.is_file()}
    return {"pair.folder": (found.folder.name, own | {f"student/{name}": p for name, p in weights.items()})}


def config_of(path: str, role: str) -> Any:
    """The configuration of a checkpoint that can be opened.

    Raises:
        PairError: not readable, quantised, or in the format of a model's own repository.
    """
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        config: Any = AutoConfig.from_pretrained(path, **NO_CODE)
    except (OSError, ValueError) as err:
        raise PairError(f"{role} '{path}': not a readable checkpoint ({first_line(err)})") from None
    if getattr(config, "quantization_config", None):
        raise PairError(f"{role} '{path}' is quantised; allowed: float weights, compression is a setting")
    if hasattr(config, "mm_vision_tower"):
        raise PairError(f"{role} '{path}' is in its repository's own format; allowed: its '-hf' conversion")
    return config


def read(of: Any, path: str, role: str, what: str, **arguments: Any) -> Any:
    """A tokenizer or picture processor of a checkpoint.

    Args:
        of: a class of transformers that reads it.
        role: "teacher" or "student", for messages.
        what: it is, for messages.
        arguments: of `from_pretrained`.

    Raises:
        PairError: the checkpoint has none that can be read.
    """
    try:
        return of.from_pretrained(path, **NO_CODE, **arguments)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as err:
        raise PairError(f"{role} '{path}' has no {what} that can be read ({first_line(err)})") from None


def opened(of: Any, path: str, role: str, parts: tuple[str, ...] = ("",), **arguments: Any) -> Any:
    """The model of a checkpoint, nothing trainable, in evaluation.

    Args:
        of: a class of transformers.
        role: "teacher" or "student", for messages.
        parts: beginnings of the names of tensors that must be in the files.
        arguments: of `from_pretrained`.

    Raises:
        PairError: the checkpoint cannot be read, its files lack a tensor, or one has values that are none.
    """
    try:
        with warnings.catch_warnings(), Undrawn():
            warnings.simplefilter("ignore")
            model, found = of.from_pretrained(
                path,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # as far as here, where the error has a name
                **NO_CODE,
                **arguments,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as err:
        raise PairError(f"{role} '{path}': its weights cannot be read ({first_line(err)})") from None
    odd = {name: f"'{name}' of shape {list(wanted)}" for name, _, wanted in found["mismatched_keys"]}
    absent = {name: f"'{name}'" for name in found["missing_keys"]} | odd
    absent = {name: words for name, words in sorted(absent.items()) if name.startswith(parts)}
    if absent:
        more = f" and {len(absent) - 1} more tensors" if len(absent) > 1 else ""
        raise PairError(f"{role} '{path}': its files lack {next(iter(absent.values()))}{more}")
    for name, weights in model.named_parameters():
        if name.startswith(parts) and not _finite(weights):
            raise PairError(
                f"{role} '{path}': '{name}' has values that are NaN or infinite; allowed: numbers"
            )
    return model.requires_grad_(False).eval()


def _finite(weights: Tensor) -> bool:
    """Whether all values are finite; a sum, which takes no memory, says so of nearly all that are."""
    if weights.is_meta or not weights.is_floating_point():
        return True
    return bool(weights.detach().sum().isfinite()) or bool(weights.detach().isfinite().all())
