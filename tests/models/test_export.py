"""What a run has learned comes out as plain checkpoints that answer as the run's student does."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoImageProcessor, AutoTokenizer, BitsAndBytesConfig, LlavaForConditionalGeneration

from cdc_flower import checkpoint
from cdc_flower.config import ConfigError
from cdc_flower.models import adapters, vlm
from cdc_flower.models.export import as_adapter, export
from cdc_flower.models.student import twin_model


@pytest.fixture(scope="module")
def pair_config(config):
    return dataclasses.replace(config.pair, lora_rank=2)


@pytest.fixture(scope="module")
def twin(run, shared, pair_config):
    """The run's student in float, with the newest adapter."""
    model = twin_model(shared, pair_config)
    _, parts = checkpoint.load_newest(run / "checkpoints")
    first = adapters.read(model)
    adapters.write(model, next(iter(parts["arrays"].values())))
    assert not np.array_equal(adapters.read(model), first), "the run has learned something"
    return model


@pytest.fixture(scope="module")
def inputs(shared):
    tokens = np.random.default_rng(0).normal(size=(2, shared.n_tokens, shared.width))
    asked = [shared.text.question_ids(q) for q in ("where is the star?", "what is red?")]
    return vlm.collate(shared.text, tokens, asked)


def load_peft(folder: Path, shared):
    quantization = json.loads((folder / "base_quantization.json").read_text())
    base = LlavaForConditionalGeneration.from_pretrained(
        shared.path,
        dtype=torch.float32,
        attn_implementation="eager",
        quantization_config=BitsAndBytesConfig(**quantization),
    )
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return PeftModel.from_pretrained(base, str(folder)).eval()


@torch.no_grad()
def test_the_peft_folder_gives_the_runs_logits(run, twin, shared, inputs, tmp_path):
    folder = export(run, tmp_path / "adapter")
    found = vlm.forward(load_peft(folder, shared), inputs).logits
    torch.testing.assert_close(found, vlm.forward(twin, inputs).logits, atol=1e-4, rtol=1e-4)
    assert "compression `nf4`" in (folder / "README.md").read_text()


@torch.no_grad()
@pytest.mark.parametrize("compression", ["int4", "none"])
def test_the_code_in_the_readme_runs_for_every_kind_of_base(
    shared, pair_config, inputs, tmp_path, compression
):
    config = dataclasses.replace(pair_config, compression=compression)
    model = twin_model(shared, config)
    adapters.write(model, adapters.read(model) + np.float32(0.01))
    as_adapter(model, shared, config, tmp_path / "adapter", "?")
    code = (tmp_path / "adapter" / "README.md").read_text().split("```")[1].removeprefix("python\n")
    names: dict = {}
    exec(code, names)
    found = vlm.forward(names["model"].eval(), inputs).logits
    torch.testing.assert_close(found, vlm.forward(model, inputs).logits, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_code_in_the_readme_runs(run, twin, inputs, tmp_path):
    folder = export(run, tmp_path / "adapter")
    code = (folder / "README.md").read_text().split("```")[1].removeprefix("python\n")
    names: dict = {}
    exec(code, names)
    found = vlm.forward(names["model"].eval(), inputs).logits
    torch.testing.assert_close(found, vlm.forward(twin, inputs).logits, atol=5e-2, rtol=5e-2)


def test_the_code_in_the_readme_names_folder_and_base_from_everywhere(
    shared, pair_config, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("student").symlink_to(shared.path)
    near = dataclasses.replace(shared, path="student")
    as_adapter(twin_model(shared, pair_config), near, pair_config, Path("model"), "?")
    words = Path("model/README.md").read_text()
    assert f'here = Path("{tmp_path / "model"}")' in words
    assert f'from_pretrained("{tmp_path / "student"}"' in words
    assert f"`{tmp_path / 'student'}` is needed where this is loaded" in words


@torch.no_grad()
def test_the_merged_checkpoint_is_whole_and_gives_the_runs_logits(run, twin, shared, inputs, tmp_path):
    folder = export(run, tmp_path / "merged", merge=True)
    model, report = LlavaForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    found = vlm.forward(model.eval(), inputs).logits
    torch.testing.assert_close(found, vlm.forward(twin, inputs).logits, atol=1e-4, rtol=1e-4)
    assert AutoTokenizer.from_pretrained(folder).chat_template == shared.text.tokenizer.chat_template
    assert AutoImageProcessor.from_pretrained(folder, backend="pil").size == shared.processor.size
    tower = model.model.vision_tower.state_dict()
    assert all(torch.equal(t, tower[n]) for n, t in shared.tower.state_dict().items())


@torch.no_grad()
def test_a_devices_adapter_is_the_one_it_holds(run, shared, pair_config, inputs, tmp_path):
    folder = export(run, tmp_path / "device", device=1)
    files = {p.stem: np.load(p) for p in (run / "adapters").glob("*.npy")}
    _, parts = checkpoint.load_newest(run / "checkpoints")
    (own,) = [flat for stem, flat in files.items() if bytes.fromhex(stem) in bytes(parts["devices"]["1"])]
    model = twin_model(shared, pair_config)
    adapters.write(model, own)
    found = vlm.forward(load_peft(folder, shared), inputs).logits
    torch.testing.assert_close(found, vlm.forward(model, inputs).logits, atol=1e-4, rtol=1e-4)


def test_a_run_of_norms_comes_out_merged_alone(learn, shared, pair_config, inputs, tmp_path):
    run = learn(tmp_path / "norms", **{"pair.adapter": "norms", "run.rounds": 1})
    assert "kind 'norms'; allowed: --merge" in refusal(run, tmp_path / "out")
    _, parts = checkpoint.load_newest(run / "checkpoints")
    model = twin_model(shared, dataclasses.replace(pair_config, adapter="norms"))
    first, newest = adapters.read(model), next(iter(parts["arrays"].values()))
    assert not np.array_equal(newest, first)
    adapters.write(model, newest)
    merged = LlavaForConditionalGeneration.from_pretrained(
        export(run, tmp_path / "out", merge=True), dtype=torch.float32
    )
    with torch.no_grad():
        want, found = (vlm.forward(m.eval(), inputs).logits for m in (model, merged))
    torch.testing.assert_close(found, want, atol=1e-4, rtol=1e-4)


def refusal(*arguments, **more) -> str:
    with pytest.raises(ConfigError) as told:
        export(*arguments, **more)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_what_cannot_be_exported_is_said_in_a_line(run, tmp_path):
    assert "config.json is missing" in refusal(tmp_path, tmp_path / "out")
    assert "is there already; allowed: a new or empty folder" in refusal(run, run)
    assert "device 9: not in run" in refusal(run, tmp_path / "out", device=9)
    bare = shutil.copytree(run, tmp_path / "bare")
    shutil.rmtree(bare / "checkpoints")
    assert "no checkpoint; allowed: a run with run.checkpoint-every" in refusal(bare, tmp_path / "out")
    written = json.loads((bare / "config.json").read_text())
    (bare / "config.json").write_text(json.dumps({**written, "pair_digest": "0" * 64}))
    assert "its models have changed since" in refusal(bare, tmp_path / "out")
    assert not (tmp_path / "out").exists()
