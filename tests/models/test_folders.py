"""A checkpoint is found, known by its bytes, and opened whole or not at all."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoTokenizer, LlavaForConditionalGeneration

from cdc_flower.config import ConfigError
from cdc_flower.models import folders
from cdc_flower.models.folders import PairError, config_of, install, opened, paths, read, weights_digest
from cdc_flower.stages import PairConfig


@pytest.fixture
def student(pair_folder, tmp_path) -> Path:
    return shutil.copytree(pair_folder / "student", tmp_path / "student")


def open_student(folder: Path):
    return opened(LlavaForConditionalGeneration, str(folder), "student", dtype=torch.float32)


def change_config(folder: Path, **more) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))


def test_one_of_teacher_and_student_is_not_enough(pair_folder):
    with pytest.raises(PairError, match="go together"):
        paths(PairConfig(teacher=str(pair_folder / "teacher")), "x")


def test_no_weights_found_says_where_it_looked_and_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("CDC_FLOWER_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no weights found for 'nowhere'; looked in .*cdc-flower pretrain"):
        paths(PairConfig(), "nowhere")


def test_a_folder_that_is_no_pair_is_refused(tmp_path):
    with pytest.raises(PairError, match=r"no pair\.json"):
        paths(PairConfig(folder=str(tmp_path)), "x")


def test_weights_are_found_in_the_cache_where_the_package_has_only_the_card(
    monkeypatch, tmp_path, pair_folder
):
    package, bundle = tmp_path / "package", tmp_path / "bundle"
    shutil.copytree(pair_folder, package / "toy")
    monkeypatch.setenv("CDC_FLOWER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(folders, "WEIGHTS", package)
    installed = install("toy")
    (bundle / "toy").mkdir(parents=True)
    shutil.copy(package / "toy" / "pair.json", bundle / "toy")
    monkeypatch.setattr(folders, "WEIGHTS", bundle)
    assert folders.find_pair(PairConfig(), "toy") == installed
    shutil.rmtree(tmp_path / "cache")  # another cache, before anybody has installed anything into it
    monkeypatch.setattr(folders, "_installed", lambda: package)
    assert folders.find_pair(PairConfig(), "toy") == installed


def test_the_installed_package_is_found_from_a_copy_without_weights():
    assert (folders._installed() / "scenes" / "student" / "model.safetensors").is_file()


def test_a_tensor_that_the_files_lack_is_an_error_that_names_it(student):
    file = student / "model.safetensors"
    tensors = load_file(file)
    name = next(n for n in sorted(tensors) if "layers.0.mlp.up_proj" in n)
    save_file({n: t for n, t in tensors.items() if n != name}, file, {"format": "pt"})
    with pytest.raises(PairError, match=rf"student '{student}': its files lack '.*layers.0.mlp.up_proj"):
        open_student(student)


def test_a_tensor_of_another_shape_is_an_error_that_names_it(student):
    file = student / "model.safetensors"
    tensors = load_file(file)
    name = next(n for n in sorted(tensors) if "layers.0.mlp.up_proj" in n)
    save_file({**tensors, name: tensors[name][:-1].contiguous()}, file, {"format": "pt"})
    with pytest.raises(PairError, match=r"its files lack '.*up_proj.weight' of shape") as told:
        open_student(student)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_an_error_that_names_one(student, value):
    file = student / "model.safetensors"
    tensors = load_file(file)
    name = next(n for n in sorted(tensors) if "layers.0.mlp.up_proj" in n)
    tensors[name].view(-1)[5] = value
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(
        PairError, match=r"'.*layers.0.mlp.up_proj.weight' has values that are NaN or infinite"
    ):
        open_student(student)


def test_large_weights_of_which_the_sum_is_infinite_are_numbers(student):
    file = student / "model.safetensors"
    tensors = load_file(file)
    name = next(n for n in sorted(tensors) if "layers.0.mlp.up_proj" in n)
    save_file({**tensors, name: torch.full_like(tensors[name], 3e38, dtype=torch.float32)}, file)
    assert open_student(student)


def test_a_missing_shard_is_said_in_one_line(pair_folder, tmp_path):
    model = LlavaForConditionalGeneration.from_pretrained(pair_folder / "student")
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    next(tmp_path.glob("model-00002-*")).unlink()
    with pytest.raises(PairError, match="its weights cannot be read") as told:
        open_student(tmp_path)
    assert "\n" not in str(told.value)


def test_weights_in_pickle_are_neither_opened_nor_hashed(student):
    (student / "model.safetensors").rename(student / "pytorch_model.bin")
    with pytest.raises(PairError, match="its weights cannot be read"):
        open_student(student)
    with pytest.raises(PairError, match="no weights in safetensors"):
        weights_digest(student)


def test_damaged_weights_are_said_in_one_line(student):
    (student / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(PairError, match=r"its (weights cannot be read|files lack)"):
        open_student(student)


def test_a_quantised_checkpoint_is_refused(student):
    change_config(student, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(PairError, match="is quantised; allowed: float weights"):
        config_of(str(student), "student")


def test_the_format_of_llavas_own_repository_is_refused(student):
    change_config(student, mm_vision_tower="openai/clip-vit-large-patch14-336")
    with pytest.raises(PairError, match="own format; allowed: its '-hf' conversion"):
        config_of(str(student), "student")


def test_code_of_a_checkpoint_runs_whatever_is_typed_never(student, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    ran = tmp_path / "ran"
    (student / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: ...\n")
    for file, change in {
        "config.json": {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}},
        "tokenizer_config.json": {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}},
        "preprocessor_config.json": {
            "image_processor_type": "Own",
            "auto_map": {"AutoImageProcessor": "own.Own"},
        },
    }.items():
        (student / file).write_text(json.dumps({**json.loads((student / file).read_text()), **change}))
    where = str(student)
    with pytest.raises(PairError, match="contains custom code") as told:
        config_of(where, "student")
    assert "\n" not in str(told.value)
    with pytest.raises(PairError, match="contains custom code"):
        read(AutoImageProcessor, where, "student", "picture processor", backend="pil")
    with suppress(PairError):  # it may have a tokenizer without code, too
        read(AutoTokenizer, where, "student", "tokenizer")
    assert not ran.exists()


def test_what_a_device_reads_of_a_pair_has_nothing_of_the_teacher(pair_folder, tmp_path):
    ((setting, (name, files)),) = folders.device_files(PairConfig(folder=str(pair_folder)), "x").items()
    assert (setting, name) == ("pair.folder", pair_folder.name)
    assert {"pair.json", "student/config.json", "student/model.safetensors"} <= set(files)
    assert all(files[inside] == pair_folder / inside for inside in files)
    assert not [inside for inside in files if "teacher" in inside]
    bare = tmp_path / "small"
    shutil.copytree(pair_folder / "student", bare)
    (bare / ".git").mkdir()
    (bare / ".git" / "pack").touch()
    found = folders.device_files(PairConfig(teacher="nowhere", student=str(bare)), "x")
    assert found["pair.student"][0] == "small"
    assert set(found["pair.student"][1]) == {p.name for p in bare.iterdir() if p.is_file()}
