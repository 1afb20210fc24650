"""Teacher and student: two LLaVA checkpoints with one frozen vision tower and one tokenizer.

That both read the same tokens is what lets the cloud use a device's tokens without its picture; a pair that
does not share them is refused. A *pair folder* is `teacher/` and `student/`, two ordinary Hugging Face
checkpoints, and `pair.json` (prompt, recipe, scores). `llava-hf/llava-1.5-13b-hf` and
`llava-hf/llava-1.5-7b-hf` go through the same code.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, LlavaForConditionalGeneration
from transformers.utils import logging as hf_logging

from cdc_flower.config import ConfigError, PairConfig, UplinkConfig
from cdc_flower.models import transform
from cdc_flower.models.transform import Transform
from cdc_flower.models.vlm import Text, parts

LLAVA_PREFIX, LLAVA_SUFFIX = "USER: ", "\n{question} ASSISTANT:"
WEIGHTS = Path(__file__).parent.parent / "weights"


class PairError(ConfigError):
    """No usable pair of models; the message says what is missing or differs."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A loaded teacher and where the student is; compare pairs by `digest`."""

    name: str
    digest: str  # sha256 hex of both checkpoints' weights
    tower_digest: str  # sha256 hex of the vision tower's weights and feature choice
    teacher: LlavaForConditionalGeneration
    student_path: str
    text: Text
    processor: Any  # image processor of the checkpoints (PIL backend)
    n_tokens: int  # N
    width: int  # D
    vocab: int  # V
    max_answer_tokens: int
    card: dict[str, Any]  # pair.json, {} for bare checkpoints
    transform: Transform | None = None  # of tokens, where the pair folder has one for this tower

    @property
    def side(self) -> int:
        """Pixels of a side of the square that the tower reads."""
        return self._vision.image_size

    @property
    def patch(self) -> int:
        """Pixels of a side of one of its patches."""
        return self._vision.patch_size

    def student_config(self) -> dict[str, Any]:
        """The student's `config.json`, defaults filled in."""
        return AutoConfig.from_pretrained(self.student_path).to_dict()

    def transform_for(self, config: UplinkConfig) -> Transform | None:
        """The transform that tokens are sent in; None where the setting or the pair has none."""
        return None if config.transform == "none" else self.transform

    @property
    def _vision(self) -> Any:
        config: Any = self.teacher.config
        return config.vision_config


def cache_folder() -> Path:
    """`$CDC_FLOWER_CACHE`, else `~/.cache/cdc_flower`."""
    return Path(os.environ.get("CDC_FLOWER_CACHE") or Path.home() / ".cache" / "cdc_flower")


def weights_digest(*folders: Path, turn: Transform | None = None) -> str:
    """Hash of the safetensors files of checkpoints, in order, and of the transform that goes with them."""
    h = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.glob("*.safetensors")):
            h.update(file.name.encode())
            h.update(file.read_bytes())
    if turn is not None:  # not its file: the metadata of safetensors stand in any order
        h.update(turn.digest)
    return h.hexdigest()


def find_pair(config: PairConfig, data_name: str) -> Path:
    """The pair folder: the explicit setting, then the cache folder, then the package.

    A Flower app bundle carries code and JSON but no weights, so the card in the bundle names the digest under
    which `install` put the weights into the cache.

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
        if (folder / "pair.json").is_file() and (folder / "student" / "model.safetensors").is_file():
            return folder
    raise PairError(
        f"no weights found for '{data_name}'; looked in {', '.join(map(str, tried))}; "
        "train a pair with `cdc-flower pretrain --data DATA`, or set 'pair', or 'teacher' and "
        "'student'"
    )


def install(data_name: str = "scenes") -> Path | None:
    """Copy a packaged pair into the cache folder, where code that runs from an app bundle finds it."""
    source = WEIGHTS / data_name
    if not (source / "student" / "model.safetensors").is_file():
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


def _checkpoint(path: str, role: str) -> LlavaForConditionalGeneration:
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        kind = AutoConfig.from_pretrained(path).model_type
    except (OSError, ValueError) as err:
        raise PairError(f"{role} '{path}': not a readable checkpoint ({str(err).splitlines()[0]})") from None
    if kind != "llava":
        raise PairError(f"{role} '{path}' is of architecture '{kind}'; allowed: llava")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = LlavaForConditionalGeneration.from_pretrained(path, dtype="auto")
    model.requires_grad_(False).eval()
    if not torch.cuda.is_available():
        return model.float()
    for part in parts(model):  # not the tower: its tokens, and its digest, are those of every other machine
        part.to(torch.bfloat16)
    return model.cuda()


def _same(what: str, teacher: Any, student: Any) -> None:
    if teacher != student:
        raise PairError(
            f"teacher and student do not share one {what} ({teacher} against {student}); tokens "
            "of one would mean nothing to the other"
        )


def tower_digest(model: LlavaForConditionalGeneration) -> str:
    """Hash of the vision tower's weights (as float16) and of the choice of its output layer."""
    config: Any = model.config
    h = hashlib.sha256(repr((config.vision_feature_layer, config.vision_feature_select_strategy)).encode())
    for name, p in sorted(model.model.vision_tower.state_dict().items()):
        h.update(name.encode())
        h.update(p.detach().cpu().to(torch.float16).contiguous().numpy().tobytes())
    return h.hexdigest()


def _tokens_of(config: Any) -> int:
    vision = config.vision_config
    n = (vision.image_size // vision.patch_size) ** 2
    return n if config.vision_feature_select_strategy == "default" else n + 1


@lru_cache(maxsize=4)
def load_pair(config: PairConfig, data_name: str) -> Pair:
    """Load and check a pair; the student itself is loaded by `models.compress`.

    Raises:
        PairError: nothing found, another architecture, or towers / tokenizers that differ.
    """
    card: dict[str, Any] = {}
    folder: Path | None = None
    if config.teacher or config.student:
        if not (config.teacher and config.student):
            raise PairError("settings 'pair.teacher' and 'student' go together; only one of them is set")
        teacher_path, student_path = config.teacher, config.student
        prefix, suffix = config.prompt_prefix or LLAVA_PREFIX, config.prompt_suffix or LLAVA_SUFFIX
        name = Path(student_path).name
    else:
        folder = find_pair(config, data_name)
        card = json.loads((folder / "pair.json").read_text())
        teacher_path, student_path = str(folder / "teacher"), str(folder / "student")
        prefix, suffix, name = card["prompt_prefix"], card["prompt_suffix"], card["name"]
    teacher, student = _checkpoint(teacher_path, "teacher"), _checkpoint(student_path, "student")
    _same("vision tower", *(_tower_shape(m) for m in (teacher, student)))
    _same("vision tower", *(tower_digest(m)[:12] for m in (teacher, student)))
    tokenizer, other = (AutoTokenizer.from_pretrained(p) for p in (teacher_path, student_path))
    _same(
        "tokenizer",
        *(
            hashlib.sha256(json.dumps(sorted(t.get_vocab().items())).encode()).hexdigest()[:12]
            for t in (tokenizer, other)
        ),
    )
    processor = AutoImageProcessor.from_pretrained(student_path, backend="pil")
    shape: Any = student.config
    n = _tokens_of(shape)
    local = [Path(p) for p in (teacher_path, student_path) if Path(p).is_dir()]
    tower, width = tower_digest(student), shape.vision_config.hidden_size * _layers(shape)
    turn = transform.load(folder or Path(student_path), width, tower)
    return Pair(
        name=name,
        digest=weights_digest(*local, turn=turn) if len(local) == 2 else f"{teacher_path}+{student_path}",
        tower_digest=tower,
        teacher=teacher,
        student_path=student_path,
        text=Text(tokenizer, prefix, suffix, n),
        processor=processor,
        n_tokens=n,
        width=width,
        vocab=shape.text_config.vocab_size,
        max_answer_tokens=config.max_answer_tokens,
        card=card,
        transform=turn,
    )


def _layers(config: Any) -> int:
    return 1 if isinstance(config.vision_feature_layer, int) else len(config.vision_feature_layer)


def _tower_shape(model: LlavaForConditionalGeneration) -> str:
    v: Any = model.config.vision_config
    return (
        f"{v.model_type} {v.image_size}px/{v.patch_size} width {v.hidden_size} layers {v.num_hidden_layers}"
    )
