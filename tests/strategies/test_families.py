"""Every family of models goes through whole runs, over every part that the first goes through."""

from __future__ import annotations

import pytest

from cdc_flower import results
from cdc_flower.config import ConfigError, parse
from cdc_flower.data import scenes
from cdc_flower.models.shared import load_tower
from strategies.run import run_fleet, run_local, teacher_accuracy
from tests import tiny


@pytest.fixture(scope="module")
def words():
    """All that is asked of scenes."""
    asked = scenes.generate(40, 20, seed=1)
    found = {w for frame in (asked.train, asked.test) for text in frame["question"] for w in text.split()}
    return " ".join(sorted(found)).replace("?", "")


@pytest.fixture
def settings(words, run_settings, tmp_path):
    """Teacher and student are one checkpoint: what is learned does not matter here. Or the teacher is of
    another family.
    """

    def checkpoint(family):
        folder = tmp_path / family
        if not folder.exists():
            tiny.write(family, folder, words)
        return str(folder)

    def make(family="smolvlm", teacher="", **more):
        models = {
            "pair.folder": "",
            "pair.teacher": checkpoint(teacher or family),
            "pair.student": checkpoint(family),
        }
        small = {"scenes_train": 40, "scenes_test": 20, "devices": 2, "rounds": 2, "uplink_budget": 30_000}
        return run_settings(**{**models, **small, "tokens_kept": 3, "cloud_steps": 2, **more})

    return make


OFTEN = ("llava_onevision", "qwen2_5_vl", "internvl")
"""Families whose pictures differ most; `tests/models` has every family in the short tier."""
RUNS = [
    ("smolvlm", "fedavg_lora"),
    ("gemma3", "fedavg_full"),
    *((name, "cdc") for name in OFTEN),
    *(
        pytest.param(name, "cdc", marks=pytest.mark.slow)
        for name in tiny.BUILDERS
        if name not in ("llava", *OFTEN)
    ),
]


@pytest.mark.parametrize(("family", "method"), RUNS)
def test_a_run_completes_and_teaches(family, method, settings):
    found = results.read(run_local(parse(settings(family, method=method))))
    assert found.status == "completed"
    assert set(found.devices["status"]) == {"ok"}
    assert (found.devices["flops_forward"] > 0).all()
    if method == "cdc":
        assert found.devices["uploaded_samples"].sum() > 0
        assert (found.devices["tokens_sent"] == 3 * found.devices["uploaded_samples"]).all()
        assert found.metrics.set_index("name").loc["version", "value"].max() > 0


def test_pictures_go_up_where_a_token_is_a_patch(settings):
    found = results.read(run_local(parse(settings("paligemma", uplink_unit="jpeg"))))
    assert found.status == "completed"
    assert found.devices["uploaded_samples"].sum() > 0


def test_patches_are_refused_where_a_token_is_no_patch(settings):
    with pytest.raises(ConfigError, match="in models of family 'smolvlm' a token is no patch"):
        run_local(parse(settings(uplink_unit="patches")))


NAMES = list(tiny.BUILDERS)
UNLIKE = [
    ("smolvlm", "gemma3", "jpeg"),
    ("paligemma", "qwen2_5_vl", "patches"),
    *(
        pytest.param(student, teacher, "jpeg", marks=pytest.mark.slow)
        for student, teacher in zip(NAMES, [*NAMES[3:], *NAMES[:3]], strict=True)
    ),
]


@pytest.mark.parametrize(("student", "teacher", "unit"), UNLIKE)
def test_a_teacher_with_another_tower_and_other_words_teaches_by_pictures_and_text(
    student, teacher, unit, settings
):
    config = parse(settings(student, teacher, rounds=1, uplink_unit=unit, uplink_budget=10**6))
    found = results.read(run_local(config))
    assert found.status == "completed"
    assert set(found.devices["status"]) == {"ok"}
    assert found.devices["uploaded_samples"].sum() > 0
    metrics = found.metrics.set_index("name")["value"]
    assert metrics["taught"] > 0
    assert metrics["loss_ce"] > 0
    assert "loss_kl" not in metrics
    assert set(teacher_accuracy(config)) == {"source", "object", "question"}


@pytest.mark.parametrize("word", ["zebra", ""])
def test_a_teacher_with_the_students_tower_reads_its_tokens(word, settings, words, tmp_path):
    """With other words the student learns from text, with its own from logits, too."""
    made = settings("llava", rounds=1)
    folder, tower = tmp_path / "other", load_tower(made["pair.student"])
    tiny.write("llava", folder, f"{word} {words}", tiny.Size(64, 3), 1, tower)
    found = results.read(run_local(parse({**made, "pair.teacher": str(folder)})))
    metrics = found.metrics.set_index("name")["value"]
    assert metrics["taught"] > 0
    assert ("loss_kl" in metrics) is not bool(word)


def test_what_an_unlike_teacher_cannot_do_is_refused_by_name(settings):
    jpeg = {"uplink_unit": "jpeg"}
    for more, says in (
        (
            {},
            "'uplink.unit' = 'tokens': teacher and student have different vision towers .* allowed: jpeg, by",
        ),
        (
            {**jpeg, "losses": "ce,feature"},
            "'feature' needs a teacher .* tokens or ids.* allowed: ce, entropy$",
        ),
        (
            {"uplink_unit": "jpeg", "losses": "kl"},
            "'kl' needs a teacher with the student's ids.* allowed: ce, entropy$",
        ),
    ):
        with pytest.raises(ConfigError, match=says):
            run_local(parse(settings("smolvlm", "gemma3", uplink_budget=10**6, **more)))


@pytest.mark.parametrize("method", ["static", "fedavg_lora"])
def test_methods_without_a_teacher_run_with_any_pair(method, settings):
    found = results.read(run_local(parse(settings("smolvlm", "gemma3", method=method, rounds=1))))
    assert found.status == "completed"


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.*subprocess .* is still running:ResourceWarning", "ignore:unclosed file:ResourceWarning"
)
def test_a_worker_of_another_process_gives_the_same_ledger(settings):
    here = results.read(run_local(parse(settings())))
    there = results.read(run_fleet(parse(settings()), workers=1))
    assert there.run["ledger_digest"] == here.run["ledger_digest"]
