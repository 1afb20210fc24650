"""Cost models: real sizes, a source each, files as Hugging Face writes them, one line for what is wrong."""

from __future__ import annotations

import json

import pytest

from cdc_flower.config import ConfigError
from cdc_flower.fleet.cost import cost_models, roofline
from cdc_flower.fleet.cost.cost_models import load, of_a_question, table
from cdc_flower.fleet.cost.profiles import read_profiles

PROFILES = read_profiles()
WEIGHTS = {"llava-qwen-0.5b": 0.464e9, "tiny-llava-1.4b": 1.1e9, "llava-1.5-7b": 6.74e9}
"""Published weights of the language models."""


def test_every_model_of_the_table_has_a_source_and_its_published_size():
    assert set(table()) == set(WEIGHTS)
    for name, config in table().items():
        assert len(config["source"]) > 20
        found = roofline.shapes(config, 0)
        weights = found.compressed + found.head + found.embedding + found.norms
        assert weights == pytest.approx(WEIGHTS[name], rel=0.01), name


def test_the_tiny_one_has_the_bytes_of_its_published_files():
    found = roofline.shapes(table()["tiny-llava-1.4b"], 0)
    weights = found.compressed + found.head + found.embedding + found.norms + found.projector + found.tower
    assert 4 * weights == pytest.approx(4.98e9 + 0.661e9, rel=0.01)


def test_nothing_said_is_the_students_own():
    own = {"text_config": {}}
    assert load("", own) is own
    assert load("llava-1.5-7b", own)["text_config"]["hidden_size"] == 4096


def test_a_config_file_gets_the_defaults_that_it_leaves_out(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(
            {  # as in llava-hf/llava-1.5-7b-hf: what is Llama's default is not written
                "model_type": "llava",
                "vision_feature_layer": -2,
                "text_config": {"model_type": "llama", "vocab_size": 32064},
                "vision_config": table()["llava-1.5-7b"]["vision_config"]
                | {"model_type": "clip_vision_model"},
            }
        )
    )
    assert roofline.shapes(load(str(path), {}), 16) == roofline.shapes(table()["llava-1.5-7b"], 16)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read"),
        ("{", "no JSON"),
        ("[]", "model type None"),
        ('{"model_type": "qwen2_vl"}', "model type 'qwen2_vl'"),
        ("[" * 100_000, "no JSON"),
        ('{"model_type": "llava", "vision_config": 7}', "cannot be read as a LLaVA config"),
    ],
)
def test_a_file_that_is_no_llava_config_is_refused_in_one_line(tmp_path, content, why):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=why) as error:
        load(str(path), {})
    assert str(path) in str(error.value)
    assert "tiny-llava-1.4b" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_deployment_runs_its_tower_in_float16_and_the_student_here_in_float32(tmp_path):
    own = {
        "text_config": table()["llava-1.5-7b"]["text_config"],
        "vision_config": table()["llava-1.5-7b"]["vision_config"],
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llava", **own}))
    assert roofline.shapes(load("", own), 0).tower_bytes == 4
    assert [roofline.shapes(load(name, own), 0).tower_bytes for name in (*table(), str(path))] == [2] * 4


@pytest.mark.parametrize(
    ("profile", "holds"),
    [
        ("phone-mid", ["llava-qwen-0.5b", "tiny-llava-1.4b"]),
        ("orin-nano", list(WEIGHTS)),
        ("phone-old", []),
        ("pizero2", []),
        ("laptop", ["llava-qwen-0.5b", "tiny-llava-1.4b"]),
    ],
)
def test_which_profile_holds_which_model(profile, holds):
    costs = {name: of_a_question(PROFILES[profile], roofline.shapes(table()[name], 16)) for name in WEIGHTS}
    assert [name for name, cost in costs.items() if cost is not None] == holds


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("vision_config", "patch_size", 0),
        ("text_config", "hidden_size", -64),
        ("text_config", "head_dim", 0.5),
        ("text_config", "num_hidden_layers", None),
        ("vision_config", "image_size", "336"),
    ],
)
def test_a_size_that_is_none_is_refused_naming_it(part, key, value):
    config = table()["llava-1.5-7b"]
    with pytest.raises(ConfigError, match=f"'{key}' = {value!r}; allowed: a whole number above 0"):
        roofline.shapes({**config, part: {**config[part], key: value}}, 16)


def test_an_unknown_name_is_refused_with_those_allowed():
    with pytest.raises(
        ConfigError, match=r"'fleet.cost-model' = 'llava-8b'; allowed: .*llava-1.5-7b.*config.json"
    ):
        load("llava-8b", {})


def test_the_cost_of_a_question_is_that_of_its_passes_in_the_least_compression_that_fits():
    shapes = roofline.shapes(table()["tiny-llava-1.4b"], 16)
    laptop = of_a_question(PROFILES["laptop"], shapes)
    assert laptop is not None
    compression = roofline.compression_for(PROFILES["laptop"], shapes, shapes.patches + 58)
    passes = roofline.answering(shapes, compression, shapes.patches + 50, shapes.patches, 8)
    assert laptop.compression == compression
    assert laptop.seconds == roofline.work_seconds(PROFILES["laptop"], passes)
    assert laptop.joules == PROFILES["laptop"].compute_power * laptop.seconds
    assert of_a_question(PROFILES["pizero2"], roofline.shapes(table()["llava-1.5-7b"], 16)) is None
    assert cost_models.ANSWER == 8
