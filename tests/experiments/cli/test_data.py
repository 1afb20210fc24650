"""Packs are checked and counted; what is no pack is refused in one line."""

import pytest

from cdc_flower.config import parse
from cdc_flower.data import packs
from tests import published_files, videos


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "nowhere"], "nowhere"),
        (["import", "imagenet", ".", "out"], "data set 'imagenet'; allowed: vqav2, aokvqa"),
        (["import", "vqav2", "nowhere", "out"], "'SOURCE': 'nowhere' is no folder; allowed: a folder"),
        (["show", "nowhere"], "nowhere"),
        (["import-jsonl", "nowhere", "out"], "'nowhere' is no folder; allowed: a folder that is there"),
        (["import-jsonl", ".", "out", "--map", "x"], "--map 'x'; allowed: column=field"),
    ],
)
def test_what_is_no_pack_is_refused(refused, arguments, message):
    assert message in refused("data", *arguments)


def test_published_files_are_imported_and_what_is_left_out_is_said(command, tmp_path):
    published_files.vqav2(tmp_path / "down")
    published_files.aokvqa(tmp_path / "down")
    code, out, err = command("data", "import", "vqav2-aokvqa", tmp_path / "down", tmp_path / "vqav2-aokvqa")
    assert code == 0
    assert "train: 28 questions on 12 pictures" in out
    assert "aokvqa_v1p0_train.json: 2 questions have difficult_direct_answer" in err
    code, out, err = command("data", "show", tmp_path / "vqav2-aokvqa")
    assert code == 0
    assert "knowledge" in out


def test_a_pack_is_checked_and_counted(command, tmp_path):
    pack = packs.load(parse({"data.scenes-train": 40, "data.scenes-test": 20}).data)
    for split in ("train", "test"):
        frame, images = getattr(pack, split), getattr(pack, f"{split}_images")
        frame["image"] = [images[i] for i in frame["image_id"]]
    packs.write_pack(tmp_path / "pack", pack.train, pack.test)
    code, out, _ = command("data", "check", tmp_path / "pack")
    assert code == 0
    assert f"train: {len(pack.train)} questions on 40 pictures" in out
    code, out, _ = command("data", "show", tmp_path / "pack", "--set", "data.known-questions=what")
    assert code == 0
    assert "question" in out


def test_videos_become_clips_that_are_checked_and_shown(command, tmp_path):
    source, pack = tmp_path / "source", tmp_path / "pack"
    lines = ["path,question,answer,user,weather"]
    for i in range(4):
        videos.video(source / "of" / f"{i}.mp4", 3 + i)
        lines.append(f"of/{i}.mp4,what is it?,a{i % 2},u{i},rain")
    (source / "about.csv").write_text("\n".join(lines))
    arguments = ["data", "import-videos", source, pack, "--map", "file=path", "--frames", "3"]
    code, out, err = command(*arguments)
    assert (code, err) == (0, f"{source / 'about.csv'}: further columns: weather\n")
    assert "questions on" in out
    assert "clips, " in out
    code, _, err = command(*arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert "holds a pack already; allowed: another folder, or --replace" in err
    assert command(*arguments, "--replace")[0] == 0
    sheet = tmp_path / "sheet.html"
    code, out, _ = command("data", "show", pack, "--set", "data.object-column=weather", "--html", sheet)
    assert code == 0
    assert "3 frames a clip" in out
    assert f"contact sheet: {sheet}" in out
    assert sheet.read_text().count("data:image/jpeg") % 3 == 0
