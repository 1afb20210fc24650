"""A pack on the terminal and as a contact sheet: counts beside shares, 80 columns, nothing from elsewhere."""

import dataclasses
import io
import re

import pytest
from rich.console import Console

from cdc_flower.config import parse
from cdc_flower.data import packs
from experiments.report import pack as report

SETTINGS = {
    "data.scenes-train": 60,
    "data.scenes-test": 20,
    "data.known-objects": "old shapes",
    "data.known-questions": "what,where,yesno",
}


@pytest.fixture(scope="module")
def config():
    return parse(SETTINGS)


@pytest.fixture(scope="module")
def scenes(config):
    return packs.load(config.data, seed=1)


def clips_of(pack):
    """The pack as if each picture were a clip of two frames."""
    images = [
        {name: (data, data) for name, data in of.items()} for of in (pack.train_images, pack.test_images)
    ]
    rates = {"fps": 2.5}
    return dataclasses.replace(
        pack,
        clips=True,
        train=pack.train.assign(**rates),
        test=pack.test.assign(**rates),
        train_images=images[0],
        test_images=images[1],
    )


def shown(pack, config, width=80):
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False)
    for one in report.shown(pack, config):
        console.print(one, soft_wrap=isinstance(one, str), markup=False)
    return out.getvalue()


def test_known_and_new_values_stand_with_rows_and_shares_in_80_columns(scenes, config):
    text = shown(scenes, config)
    table = [line for line in text.splitlines() if "note:" not in line and "axis " not in line]
    assert max(map(len, table)) <= 80
    new = int((scenes.train["concept"] == "new shapes").sum())
    of = 100 * new / len(scenes.train)
    assert re.search(rf"new shapes +new +{new} +{of:.1f} ", text)
    assert "axis object (data.known-objects, column concept) = old shapes: 1 values known, 1 new" in text
    assert "axis style (data.known-styles, column domain): not set, all" in text
    assert "note: Few test items: " in text
    assert f"train: {len(scenes.train)} questions on 60 pictures," in text


def test_of_clips_frames_and_rate_are_said(scenes, config):
    assert "on 60 clips, 2 frames a clip, 2.5 a second," in shown(clips_of(scenes), config)


def test_many_values_are_cut_to_the_most_frequent(scenes, config):
    many = {"train": scenes.train.assign(concept=[f"v{i % 40}" for i in range(len(scenes.train))])}
    own = parse({**SETTINGS, "data.known-objects": "50%"})
    text = shown(dataclasses.replace(scenes, **many, test=scenes.test.assign(concept="v1")), own)
    assert re.search(r"\.\.\. 5 more +known", text)
    assert "20 values known, 20 new" in text


def test_the_contact_sheet_needs_no_other_file_and_shows_every_kind(scenes, config, tmp_path):
    odd = scenes.train.assign(question="<script>x</script>")
    report.write_sheet(dataclasses.replace(scenes, train=odd), config, tmp_path / "sheet.html")
    text = (tmp_path / "sheet.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:image/jpeg;base64,)""", text)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    for qtype in set(scenes.train["qtype"]):
        assert f"· {qtype} <span" in text
    assert text.count("<figure ") == text.count("<img ") <= report.MOST


def test_a_clip_is_its_frames_in_a_row(scenes, config, tmp_path):
    report.write_sheet(clips_of(scenes), config, tmp_path / "sheet.html")
    text = (tmp_path / "sheet.html").read_text()
    assert text.count("<img ") == 2 * text.count("<figure ")
    assert 'alt="frame 2 of' in text
