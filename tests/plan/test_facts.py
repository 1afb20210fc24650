import pandas as pd
import pytest

from cdc_flower.config import flat, parse
from cdc_flower.plan import facts
from cdc_flower.plan.checkpoints import open_checkpoint


def test_generated_data_is_as_large_as_the_settings_say(config):
    more = parse({**flat(config), "data.scenes-train": 400, "data.scenes-test": 100})
    assert facts.data(more) == facts.Data(400, 100, 500 * facts.SCENE_BYTES)


def test_generated_clips_are_those_of_the_devices_users():
    more = parse({"data.pack": "clips", "data.clips-users": 80, "data.clips-each": 6})
    assert facts.data(more) == facts.Data(20 * 6, 20 * 3, 180 * facts.CLIP_BYTES)


def test_frames_of_a_pack_in_one_file_are_counted_as_bytes_not_as_texts(tmp_path, config):
    for name in ("train", "test"):
        pd.DataFrame({"frames": [[b"f" * 1000] * 4] * 30}).to_parquet(
            tmp_path / f"{name}.parquet", compression=None
        )
    found = facts.data(parse({**flat(config), "data.pack": str(tmp_path)}))
    assert 0 < found.memory < 8 * 60 * 1000


def test_a_pack_is_known_by_the_footers_of_its_files(tmp_path, config):
    rows = {"image": [b"p" * 1000] * 30, "question": ["what is it?"] * 30}
    for name in ("train-00000", "train-00001", "test"):
        pd.DataFrame(rows).to_parquet(tmp_path / f"{name}.parquet", compression=None)
    found = facts.data(parse({**flat(config), "data.pack": str(tmp_path)}))
    assert (found.train, found.test) == (60, 30)
    one = tmp_path / "test.parquet"
    one.unlink()
    fewer = facts.data(parse({**flat(config), "data.pack": str(tmp_path)}))
    assert fewer.test == 0
    assert fewer.memory < found.memory  # pictures of numbered files stay on disk


def test_files_that_a_run_does_not_read_are_not_counted(tmp_path, config):
    for name in ("train", "test", "train-old", "training", "test-backup"):
        pd.DataFrame({"image": [b"p"] * 30, "question": ["what?"] * 30}).to_parquet(
            tmp_path / f"{name}.parquet"
        )
    found = facts.data(parse({**flat(config), "data.pack": str(tmp_path)}))
    assert (found.train, found.test) == (30, 30)


@pytest.mark.parametrize("name", ["llava", "smolvlm"])
def test_sequences_are_as_long_as_a_picture_makes_them(name, tiny_of, config):
    found = open_checkpoint(str(tiny_of(name)), "student")
    lengths = facts.lengths(config, found.config, found.path)
    assert lengths.picture >= found.family.smallest(found.config).n
    assert lengths.prompt == lengths.picture + lengths.text
    assert lengths.answer == config.pair.max_answer_tokens + 1


def test_a_clip_is_as_long_as_its_frames_and_the_words_around_them(clip_settings, clip_shared):
    config = parse(clip_settings())
    found = open_checkpoint(f"{config.pair.folder}/student", "student")
    lengths = facts.lengths(config, found.config, found.path)
    prompt = clip_shared.text.prefix_ids(clip_shared.text.grid)
    assert lengths.picture == clip_shared.n_tokens
    assert (
        lengths.text - facts.QUESTION == len(prompt) - clip_shared.n_tokens - 1
    )  # which begins with one more
    real = facts.lengths(parse({**flat(config), "data.pack": "elsewhere"}), found.config, found.path)
    assert real.text == facts.TEXT + facts.AROUND * clip_shared.frames
