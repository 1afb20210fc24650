import json
import shutil
import struct
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from cdc_flower.models import adapters
from cdc_flower.models.families import FAMILIES
from cdc_flower.models.folders import PairError
from cdc_flower.plan.checkpoints import open_checkpoint, weights_of
from cdc_flower.plan.live import Work, peak
from tests import tiny


@pytest.mark.parametrize("name", list(tiny.BUILDERS))
def test_a_checkpoint_is_weighed_as_it_would_be_loaded_whatever_the_family(name, tiny_of):
    found = open_checkpoint(str(tiny_of(name)), "student", "lora", 4, "eager")
    model = FAMILIES[found.config.model_type].model_class.from_pretrained(tiny_of(name)).requires_grad_(False)
    tower = found.family.take_tower(model)
    assert found.parts.tower == sum(p.numel() for p in tower.parameters())
    assert found.parts.language == sum(p.numel() for p in model.parameters())
    assert found.parts.adapter == found.parts.added == adapters.layout(adapters.attach(model, 4)).total
    assert 0 < found.parts.compressed < found.parts.language
    assert found.parts.stored("nf4") < found.parts.stored("int8") < found.parts.stored("none")
    assert peak(found.short, found.layers, Work(2, 12, 2, train=True)) > 0
    assert peak(found.short, found.layers, Work(2, 12, attention=True)) > 0


def test_an_adapter_of_norms_adds_its_scales_and_trains_what_is_there(tiny_of):
    found = open_checkpoint(str(tiny_of("qwen2_5_vl")), "student", "norms", 4, "eager")
    model = FAMILIES[found.config.model_type].model_class.from_pretrained(tiny_of("qwen2_5_vl"))
    whole = sum(p.numel() for p in model.parameters())
    wrapped = adapters.attach(model, 4, "norms")
    assert found.parts.adapter == adapters.layout(wrapped).total
    assert found.parts.added == sum(p.numel() for p in wrapped.parameters()) - whole
    assert 0 < found.parts.added < found.parts.adapter
    assert peak(found.short, found.layers, Work(2, 12, 2, train=True)) > 0


@pytest.mark.parametrize("compression", ["nf4", "int4"])
def test_what_compression_stores_is_what_it_compresses(pair_folder, config, shared, compression):
    from dataclasses import replace

    from cdc_flower.models.compressions import COMPRESSIONS
    from cdc_flower.models.student import device_model

    model, kind = (
        device_model(shared, replace(config.pair, compression=compression)),
        COMPRESSIONS[compression],
    )
    found = open_checkpoint(str(pair_folder / "student"), "student", "lora", config.pair.lora_rank)
    packed: list[Any] = [m for m in model.modules() if isinstance(m, kind.layer)]
    assert found.parts.compressed == sum(m.in_features * m.out_features for m in packed)
    assert found.parts.rows == sum(m.out_features for m in packed)


def test_bytes_of_the_files_are_read_from_their_headers(pair_folder):
    folder = pair_folder / "student"
    size = (folder / "model.safetensors").stat().st_size
    assert 0.9 * size < open_checkpoint(str(folder), "student").files < size


def test_a_file_that_is_cut_short_and_one_that_is_no_safetensors_file_are_refused(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [100], "data_offsets": [0, 400]}}).encode()
    short, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    short.write_bytes(struct.pack("<Q", len(header)) + header + bytes(399))
    with pytest.raises(PairError, match="cut short"):
        weights_of(short)
    short.write_bytes(short.read_bytes() + b"\0")
    assert weights_of(short) == 400
    other.write_bytes(b"PK\3\4 no header at all")
    with pytest.raises(PairError, match="no safetensors header"):
        weights_of(other)


def test_a_checkpoint_without_weights_is_refused(tmp_path, pair_folder):
    (tmp_path / "config.json").write_bytes((pair_folder / "student" / "config.json").read_bytes())
    with pytest.raises(PairError, match="no weights in safetensors"):
        open_checkpoint(str(tmp_path), "student")


@pytest.fixture
def student(pair_folder, tmp_path):
    return shutil.copytree(pair_folder / "student", tmp_path / "student")


def test_a_tensor_that_the_files_lack_is_named_though_none_is_read(student):
    file = student / "model.safetensors"
    tensors = load_file(file)
    name = next(n for n in sorted(tensors) if "layers.0.mlp.up_proj" in n)
    save_file({n: t for n, t in tensors.items() if n != name}, file, {"format": "pt"})
    with pytest.raises(PairError, match=rf"student '{student}': its files lack '.*layers.0.mlp.up_proj"):
        open_checkpoint(str(student), "student")
    save_file({**tensors, name: tensors[name][:-1].contiguous()}, file, {"format": "pt"})
    with pytest.raises(PairError, match=r"its files lack '.*up_proj.weight' of shape"):
        open_checkpoint(str(student), "student")


def test_a_file_that_the_index_names_and_that_is_absent_is_named(tiny_of, tmp_path):
    folder = shutil.copytree(tiny_of("llava"), tmp_path / "llava")
    sorted(folder.glob("model-0000*"))[-1].unlink()
    with pytest.raises(PairError, match=r"its weights cannot be read \(.*model-00002-of-00002"):
        open_checkpoint(str(folder), "teacher")


def test_a_student_without_a_chat_template_is_refused(student):
    (student / "chat_template.jinja").unlink()
    with pytest.raises(PairError, match="has no chat template"):
        open_checkpoint(str(student), "student")
    open_checkpoint(str(student), "teacher")  # which may read what the student reads
