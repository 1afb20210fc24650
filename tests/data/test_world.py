"""The world: rows, tokens and streams fit together, and the tower is asked once for each picture."""

import io
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cdc_flower.config import Config, ConfigError, parse
from cdc_flower.data import world
from cdc_flower.data.features import OPENED, Grid, cache_folder, index_path
from cdc_flower.data.packs import write_pack
from cdc_flower.data.world import load_world
from cdc_flower.session import session
from cdc_flower.tasks import TASKS
from tests.conftest import full


@dataclass(frozen=True)
class FakePair:
    name: str = "fake"
    tokens_digest: str = "0123456789abcdef"
    card: dict[str, int] = field(default_factory=dict)
    frames: int = 0


PAIR = FakePair()


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def split(first: int, pictures: int) -> pd.DataFrame:
    """Three questions of different kinds about each picture; every second picture has a new concept."""
    rows = [
        {
            "image_id": f"p{i}",
            "image": png(i),
            "question": f"{kind} {i}?",
            "answer": str(i),
            "qtype": kind,
            "domain": "flat",
            "user": f"u{i % 5}",
            "concept": "new" if i % 2 else "old",
        }
        for i in range(first, first + pictures)
        for kind in ("what", "count", "where")
    ]
    return pd.DataFrame(rows)


class Tower:
    """Stands in for the vision tower: a picture's 4 or 6 tokens of width 3 hold its grey value."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.value: float | None = None

    def __call__(self, shared: FakePair, images: list[Image.Image]) -> list[tuple[np.ndarray, Grid]]:
        assert shared.name == "fake"
        self.batches.append(len(images))
        greys = [image.getpixel((0, 0))[0] for image in images]
        grids = [Grid(6, 2, 3) if grey % 3 else Grid(4, 2, 2) for grey in greys]
        values = greys if self.value is None else [self.value] * len(greys)
        return [(np.full((g.n, 3), v, np.float32), g) for g, v in zip(grids, values, strict=True)]


@pytest.fixture(autouse=True)
def tower(monkeypatch, tmp_path) -> Tower:
    fake = Tower()
    monkeypatch.setattr(world, "_encode", fake)
    monkeypatch.setenv("CDC_FLOWER_CACHE", str(tmp_path / "cache"))
    session().close()
    write_pack(tmp_path / "pack", split(0, 100), split(100, 70))
    return fake


@pytest.fixture
def config(tmp_path):
    def make(**more: object) -> Config:
        base = {
            "data_pack": str(tmp_path / "pack"),
            "known_objects": "old",
            "known_questions": "what,count",
            "devices": 4,
            "rounds": 6,
            "samples_per_round": 8,
            "items_per_domain": 20,
        }
        return parse(full(base | more))

    return make


def test_rows_keep_their_own_picture_and_only_the_domains_of_the_run(config):
    made = load_world(config(), PAIR)
    for frame, tokens, total in [(made.train, made.train_tokens, 100), (made.test, made.test_tokens, 70)]:
        assert len(tokens) == total
        assert tokens.flat.dtype == np.float16
        for name, picture in zip(frame["image_id"], frame["image_row"], strict=True):
            grey = int(name[1:])
            grid = tokens.grid(picture)
            assert grid == (Grid(6, 2, 3) if grey % 3 else Grid(4, 2, 2)), "each picture has its own size"
            np.testing.assert_array_equal(tokens[picture], np.full((grid.n, 3), grey))
        assert set(frame["drift_domain"]) == {"source", "object", "question"}, "no mixed axis here"
        assert frame.index.tolist() == list(range(len(frame)))
    assert ((made.train["concept"] == "new") == (made.train["drift_domain"] == "object")).all()
    assert ((made.train["qtype"] == "where") == (made.train["drift_domain"] == "question")).all()


def test_streams_are_positions_into_the_train_rows_of_a_device(config):
    made = load_world(config(partition="natural", drift_onset=2, drift_spread=2, drift_ramp=3), PAIR)
    assert [len(stream) for stream in made.streams] == [6] * 4
    users = [set(made.train["user"].iloc[np.concatenate(stream)]) for stream in made.streams]
    assert sum(map(len, users)) == len(set.union(*users)) == 5, "no user comes up on two devices"
    for stream in made.streams:
        assert set(made.train["drift_domain"].iloc[stream[0]]) == {"source"}
        assert (made.train["drift_domain"].iloc[stream[-1]] != "source").sum() == 6


def test_the_held_out_items_are_the_same_for_every_seed_and_streams_are_not(config):
    first, second = load_world(config(seed=0), PAIR), load_world(config(seed=1), PAIR)
    pd.testing.assert_frame_equal(first.test, second.test)
    assert first.test["drift_domain"].value_counts().to_dict() == {"source": 20, "object": 20, "question": 20}
    assert any(not np.array_equal(a, b) for a, b in zip(first.streams[0], second.streams[0], strict=True))


def test_fewer_held_out_items_than_asked_for_are_all_used(config):
    test = load_world(config(items_per_domain=1000), PAIR).test
    assert test["drift_domain"].value_counts().to_dict() == {"source": 70, "object": 70, "question": 35}


def test_the_tower_is_asked_once_for_each_picture_and_never_again(config, tower, tmp_path):
    heard = []
    load_world(config(), PAIR, progress=lambda *said: heard.append(said))
    assert tower.batches == [64, 36, 64, 6]
    assert heard == [
        ("tokens of train pictures", 64, 100),
        ("tokens of train pictures", 100, 100),
        ("tokens of test pictures", 64, 70),
        ("tokens of test pictures", 70, 70),
    ]
    session().close()
    again = load_world(config(seed=3), PAIR)
    assert len(tower.batches) == 4, "the second process reads the file"
    assert isinstance(again.train_tokens.flat, np.memmap)
    assert not again.train_tokens.flat.flags.writeable
    files = sorted(p.name for p in (tmp_path / "cache" / "tokens").iterdir())
    digest = again.pack.digest[:12]
    stems = [f"0123456789ab-{digest}-{split}-v{OPENED}" for split in ("test", "train")]
    assert files == [f"{stem}{end}" for stem in stems for end in (".index.npy", ".npy")]


def test_another_tower_has_its_own_tokens(config, tower):
    load_world(config(), PAIR)
    load_world(config(), FakePair(tokens_digest="f" * 64))
    assert len(tower.batches) == 8


def test_a_world_is_made_once_in_a_process(config):
    assert load_world(config(), PAIR) is load_world(config(method="static", cloud_steps=1), PAIR)
    assert load_world(config(), PAIR) is not load_world(config(source_share=0.5), PAIR)


@pytest.mark.parametrize(
    "tear",
    [
        lambda data: b"",
        lambda data: data[:60],
        lambda data: data[:-1],
        lambda data: b"PK\x03\x04" + data,
        lambda data: data.replace(b"<f2", b"<i2").replace(b"<i8", b"<f8"),
    ],
    ids=["empty", "header", "short", "zip", "type"],
)
@pytest.mark.parametrize("which", ["tokens", "index"])
def test_a_torn_token_file_is_computed_anew(config, tower, tear, which):
    made = load_world(config(), PAIR)
    path = Path(made.train_tokens.flat.filename)
    path = index_path(path) if which == "index" else path
    whole = np.array(made.train_tokens.flat)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(tear(data))
    session().close()
    assert np.array_equal(load_world(config(), PAIR).train_tokens.flat, whole)
    assert tower.batches == [64, 36, 64, 6, 64, 36]


def test_a_tower_that_overflows_is_refused_and_leaves_nothing(config, tower, tmp_path):
    tower.value = float("inf")
    with pytest.raises(ConfigError, match=r"pair 'fake'.*not finite.*'p0'"):
        load_world(config(), PAIR)
    assert list((tmp_path / "cache" / "tokens").iterdir()) == []


def test_a_picture_that_the_processor_does_not_take_is_refused_in_a_line(config, monkeypatch, tmp_path):
    def encode(shared, images):
        raise ValueError("absolute aspect ratio must be smaller than 200, got 250.0")

    monkeypatch.setattr(world, "_encode", encode)
    with pytest.raises(
        ConfigError, match=r"pictures 'p0' to 'p\d+': .* pair 'fake' .*got 250\.0.*allowed: "
    ) as told:
        load_world(config(), PAIR)
    assert "\n" not in str(told.value)
    assert list((tmp_path / "cache" / "tokens").iterdir()) == []


def test_an_empty_domain_is_refused_before_the_tower_is_asked(config, tower):
    with pytest.raises(ConfigError, match=r"domain 'style' is empty in the train.*source 78, object 82"):
        load_world(config(axes="object,style"), PAIR)
    assert tower.batches == []


def test_a_cache_folder_that_cannot_be_written_is_refused(config, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"token cache.*token-cache"):
        load_world(config(token_cache=str(tmp_path / "file")), PAIR)


def test_the_cache_folder_is_the_setting_then_the_variable_then_home(monkeypatch, tmp_path):
    assert cache_folder("/a/b") == Path("/a/b")
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("CDC_FLOWER_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "cdc_flower"


def test_without_drift_only_the_source_is_there(config):
    made = load_world(config(axes="none"), PAIR)
    assert set(made.train["drift_domain"]) == set(made.test["drift_domain"]) == {"source"}


def test_all_items_of_the_test_split_are_taken_where_no_number_is_said(config):
    test = load_world(config(items_per_domain=0), PAIR).test
    assert test["drift_domain"].value_counts().to_dict() == {"source": 70, "object": 70, "question": 35}


def test_tuning_items_are_of_every_domain_and_of_the_part_that_nobody_trains_on_or_meets(config):
    reported, tuned = (
        load_world(config(items=items, items_per_domain=0), PAIR) for items in ("test", "tuning")
    )
    assert set(tuned.test["drift_domain"]) == {"source", "object", "question"}
    assert set(tuned.test["image_id"]) == set(tuned.validation["image_id"])
    for other in (reported.test, tuned.train, tuned.aside):
        assert not set(tuned.test["image_id"]) & set(other["image_id"])
    for name, picture in zip(tuned.test["image_id"], tuned.test["image_row"], strict=True):
        assert tuned.test_tokens[picture].max() == int(name[1:])


def test_questions_say_how_to_answer_as_the_task_or_the_setting_says(config):
    """But not to a pair that was trained here, on the bare questions: it has a card."""
    taught = replace(PAIR, card={"format": 1})
    for pair, more, behind in (
        (PAIR, {}, "\nAnswer the question using a single word or phrase."),
        (PAIR, {"instruction": "none"}, ""),
        (PAIR, {"instruction": "In Greek."}, "\nIn Greek."),
        (taught, {}, ""),
        (taught, {"instruction": "In Greek."}, "\nIn Greek."),
    ):
        made = load_world(config(**more), pair)
        for frame in (made.train, made.test, made.aside):
            assert frame["question"].tolist() == [
                f"{kind} {name[1:]}?{behind}"
                for kind, name in zip(frame["qtype"], frame["image_id"], strict=True)
            ]


def test_rows_of_several_tasks_each_say_their_own(config):
    rows = pd.DataFrame({"question": ["a?", "b?", "c?"], "task": ["vqa", "aokvqa-choice", "captions"]})
    said = world.instructed(rows, config(task="by-row").data)["question"]
    assert [words.split("\n")[0] for words in said] == ["a?", "b?", "c?"]
    assert [words.split("\n")[1] for words in said] == [TASKS[name].ask for name in rows["task"]]
