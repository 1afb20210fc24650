"""A pack without models gets some before its first run, once, and only where that is wanted."""

import json

import pytest

from cdc_flower.config import ConfigError, flat, parse
from cdc_flower.data import packs
from cdc_flower.models.folders import PairError, find_pair
from experiments.pretrain import pretrain
from experiments.run import pairs
from tests import tiny


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Settings of a small pack of two kinds of question, one of which the student knows."""
    monkeypatch.setenv("CDC_FLOWER_CACHE", str(tmp_path / "cache"))
    pack = packs.load(parse({"data.scenes-train": 40, "data.scenes-test": 40}).data)
    split = [
        f.assign(image=[i[k] for k in f["image_id"]])
        for f, i in ((pack.train, pack.train_images), (pack.test, pack.test_images))
    ]
    packs.write_pack(tmp_path / "mine", *split)
    return parse(
        {
            "data.pack": str(tmp_path / "mine"),
            "data.known-questions": "what,colour,yesno,count",
            "drift.axes": "question",
        }
    )


@pytest.fixture(autouse=True)
def trained(monkeypatch):
    """Counts trainings, and lets each take a second: none of its stages has a step."""
    calls, train = [], pretrain.pretrain

    def quick(config, target, recipe, *told):
        calls.append(target)
        return train(config, target, pretrain.Recipe(tower_steps=0, teacher_steps=0, student_steps=0), *told)

    monkeypatch.setattr(pretrain, "pretrain", quick)
    return calls


def nothing(*_):
    pass


def test_a_pack_without_a_pair_gets_one_where_runs_look_for_it(config, trained):
    said = []
    target = pairs.ensure(config, said.append, nothing)
    assert trained == [target]
    assert find_pair(config.pair, "mine") == target
    for words in ("'mine'", "minutes", "Ctrl-C is safe", str(target), "--no-pretrain"):
        assert words in said[0]
    assert said[1] == f"stages are kept in {target / 'stages'}, each of them every minute"
    assert [line.partition(",")[0] for line in said[2:]] == [
        f"stage {i} of 3: {name}" for i, name in ((1, "tower"), (2, "teacher"), (3, "student"))
    ]
    assert pairs.ensure(config, said.append, nothing) is None
    assert (len(trained), len(said)) == (1, 5)


def test_without_leave_the_missing_pair_is_an_error(config, trained):
    with pytest.raises(PairError, match="no weights found for 'mine'"):
        pairs.ensure(config, nothing, nothing, allowed=False)
    assert trained == []


@pytest.mark.parametrize("change", [{"data.pack": "scenes"}, {"pair.teacher": "a", "pair.student": "b"}])
def test_models_that_are_named_or_packaged_are_never_trained(config, trained, change):
    assert pairs.ensure(parse({**flat(config), **change}), nothing, nothing) is None
    assert trained == []


def test_a_pack_folder_called_as_generated_data_is_refused_before_the_training(config, trained, tmp_path):
    (tmp_path / "mine").rename(tmp_path / "scenes")
    config = parse({**flat(config), "data.pack": str(tmp_path / "scenes")})
    with pytest.raises(
        ConfigError, match=r"'scenes' are generated data, .*allowed: a folder of another name"
    ):
        pairs.ensure(config, nothing, nothing)
    with pytest.raises(ConfigError, match="'scenes' are generated data"):
        pairs.train(config, pairs.folder("scenes"), None, nothing, nothing)
    assert trained == []
    pairs.train(config, tmp_path / "pair", None, nothing, nothing)
    own = parse({**flat(config), "pair.folder": str(tmp_path / "pair")})
    assert pairs.ensure(own, nothing, nothing) is None


def test_drift_that_the_pack_does_not_have_is_refused_before_the_training(config, trained):
    with pytest.raises(ConfigError, match="style"):
        pairs.ensure(parse({**flat(config), "drift.axes": "style"}), nothing, nothing)
    assert trained == []


def test_a_folder_without_a_pair_is_refused_and_nothing_is_trained(config, trained):
    with pytest.raises(PairError, match=r"'pair\.folder' = 'nowhere'"):
        pairs.ensure(parse({**flat(config), "pair.folder": "nowhere"}), nothing, nothing)
    assert trained == []


def test_a_packaged_student_that_was_taught_something_else_is_named(config):
    said = []
    pairs.ensure(parse({"data.known-questions": "what"}), said.append, nothing)
    assert "data.known-questions='what,where,yesno,count', the run assumes 'what'" in said[-1]


def card(config, **more):
    """A pair's card where runs look for it."""
    folder = pairs.folder("mine")
    (folder / "student").mkdir(parents=True)
    for name in ("model.safetensors", "chat_template.jinja"):
        (folder / "student" / name).write_bytes(b"")
    (folder / "pair.json").write_text(json.dumps(more))
    return pairs.hardly_trained(config)


def right(teacher, student):
    """Scores of a card: of the held-out samples that drift."""
    of = {"teacher": teacher, "student": student}
    return {role: {"C": {"by_domain": {"source": 0.9, "question": found}}} for role, found in of.items()}


def test_a_pair_of_a_share_of_its_steps_is_called_hardly_trained(config):
    said = card(config, steps_share=dict.fromkeys(("tower", "teacher", "student"), 0.02))
    assert f"'{pairs.folder('mine')}' was hardly trained (2 % of its steps)" in said
    assert f"`cdc-flower pretrain --data {config.data.pack}`" in said


def test_a_teacher_that_knows_no_more_than_the_student_is_named(config):
    said = card(config, scores=right(0.34, 0.3))
    assert "34.0 % of drifted held-out samples right, the student as shipped 30.0 %" in said


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"scores": right(0.9, 0.3), "steps_share": {"tower": 1.0, "teacher": 1.0, "student": 1.0}},
        {"scores": right(0.9, 0.3), "steps_share": {"tower": 1.0, "teacher": 0.2, "student": 1.0}},
    ],
    ids=["a card from before", "whole", "a weaker teacher, as asked"],
)
def test_nothing_is_said_of_a_pair_that_there_is_nothing_against(config, more):
    assert card(config, **more) == ""
    assert pairs.hardly_trained(parse({})) == ""
    assert pairs.hardly_trained(parse({"pair.teacher": "a", "pair.student": "b"})) == ""


@pytest.mark.parametrize("named", [False, True])
def test_a_student_that_was_taught_something_else_is_named(config, tmp_path, named):
    folder = tmp_path / "elsewhere" if named else pairs.folder("mine")
    config = parse({**flat(config), "pair.folder": str(folder)}) if named else config
    (folder / "student").mkdir(parents=True)
    for name in ("model.safetensors", "chat_template.jinja"):
        (folder / "student" / name).write_bytes(b"")
    (folder / "pair.json").write_text(json.dumps({"known": {"known_questions": "what"}}))
    said = []
    pairs.ensure(config, said.append, nothing)
    assert len(said) == 1
    assert "data.known-questions='what', the run assumes 'what,colour,yesno,count'" in said[0]


@pytest.fixture(scope="module")
def unlike(tmp_path_factory):
    """Settings of a pair of two families, whose towers and words differ."""
    folder = tmp_path_factory.mktemp("unlike")
    for role, family in (("teacher", "gemma3"), ("student", "smolvlm")):
        tiny.write(family, folder / role, "what is this")
    return {f"pair.{role}": str(folder / role) for role in ("teacher", "student")}


def test_what_an_unlike_teacher_does_not_teach_is_said_once_for_all_arms(unlike):
    said = []
    arms = [parse({**unlike, "uplink.unit": "jpeg", "run.seed": i}) for i in range(2)]
    pairs.tell_unlike(arms, said.append)
    assert said == [
        "note: teacher and student have different tokenizers: the student learns from the text of the "
        "teacher's answers, by ce without kl"
    ]
    pairs.tell_unlike([parse({**unlike, "uplink.unit": "jpeg", "cloud.losses": "ce"})], nothing)
    pairs.tell_unlike([parse({**unlike, "run.method": "fedavg_lora"})], pytest.fail)


def test_tokens_of_another_tower_are_refused_before_anything_is_loaded(unlike):
    with pytest.raises(
        ConfigError, match="'tokens': .*gemma3 .* against smolvlm .* allowed: jpeg, by"
    ) as refused:
        pairs.tell_unlike([parse(unlike)], nothing)
    assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match="'wavelet' needs a teacher .* allowed: ce, entropy$"):
        pairs.tell_unlike([parse({**unlike, "uplink.unit": "jpeg", "cloud.losses": "wavelet"})], nothing)


def test_a_pair_with_a_weaker_teacher_takes_over_tower_and_student(tmp_path):
    for name in ("tower", "teacher", "student"):
        (tmp_path / "full/stages").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"full/stages/{name}.safetensors").write_text(name)
    mine = tmp_path / "weak/stages"
    mine.mkdir(parents=True)
    (mine / "student.safetensors").write_text("my own")
    pairs.borrow(tmp_path / "weak", [tmp_path / "weak", tmp_path / "none", tmp_path / "full"])
    assert {path.stem: path.read_text() for path in mine.iterdir()} == {"tower": "tower", "student": "my own"}
