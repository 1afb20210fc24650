"""Claims about a camera's folder: pairs are taken oldest first and once, and what is bad is set aside."""

from __future__ import annotations

import logging
import os
from typing import Any

from PIL import Image

from clients.device import camera
from clients.device.camera import BAD, TAKEN
from tests import documents
from tests.clients.device.feeding import clip_row, pair, picture, row


def _asked(items):
    return [item.question for item in items]


def _files(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def test_pairs_are_taken_in_their_order_and_removed_when_they_are_spooled(tmp_path):
    for age, name in enumerate("cab"):
        pair(tmp_path, name, f"question {name}", age)
    feed = camera.camera(tmp_path, "")
    assert _asked(feed.poll(2)) == ["question b", "question a"]
    found = feed.poll(9)
    assert _asked(found) == ["question b", "question a", "question c"]
    feed.spooled(found[1].key)
    assert _files(tmp_path) == ["000000000003.json", "c.png"]
    assert _asked(feed.poll(9)) == ["question c"]
    feed.spooled(found[2].key)
    assert _files(tmp_path) == []
    assert list(feed.poll(9)) == []
    pair(tmp_path, "a", "again")  # a name that is free again
    assert _asked(feed.poll(9)) == ["again"]


def test_the_program_of_the_documents_offers_a_picture_that_is_taken(tmp_path):
    (block,) = [b.text for b in documents.blocks("python") if b.document == "device.md"]
    names: dict[str, Any] = {}
    exec(compile(block, "docs/device.md", "exec"), names)
    names["put"](tmp_path, "door", Image.new("RGB", (8, 8)), "who is it?")
    (item,) = camera.camera(tmp_path, "").poll(9)
    assert (item.question, item.picture[:4]) == ("who is it?", b"\x89PNG")


def test_after_a_loss_of_power_what_was_spooled_is_removed_and_the_rest_given(tmp_path):
    for age, name in enumerate("ab"):
        pair(tmp_path, name, name, -age)
    first, second = camera.camera(tmp_path, "").poll(9)
    again = camera.camera(tmp_path, "")  # nothing was spooled
    assert _asked(again.poll(9)) == ["a", "b"]
    again = camera.camera(tmp_path, first.key)  # the spool has the first, its files are still there
    assert [(i.question, i.key) for i in again.poll(9)] == [("b", second.key)]
    assert _files(tmp_path) == ["000000000002.json", "b.png"]
    pair(tmp_path, "c", "c")
    last = again.poll(9)[-1]
    assert camera.camera(tmp_path, last.key).poll(9) == []
    assert _files(tmp_path) == []
    pair(tmp_path, "d", "d")
    assert camera.camera(tmp_path, last.key).poll(9)[0].key != last.key  # no number is given twice


def test_the_frames_of_a_clip_go_together(tmp_path):
    for shade, name in enumerate("abc"):
        (tmp_path / f"{name}.png").write_bytes(picture(shade))
    (tmp_path / "clip.json").write_bytes(clip_row(["a.png", "b.png", "a.png"], "what moves?"))
    feed = camera.camera(tmp_path, "", 3)
    (found,) = feed.poll(9)
    assert found.picture == (picture(0), picture(1), picture(0))
    feed.spooled(found.key)
    assert _files(tmp_path) == ["c.png"]
    (tmp_path / "clip.json").write_bytes(clip_row(["absent.png", "c.png"], "what moves?"))
    assert feed.poll(9) == []
    assert _files(tmp_path) == ["000000000002-1 c.png", "000000000002.json"]
    assert {p.parent.name for p in tmp_path.rglob("*.*")} == {BAD}


def test_what_the_student_does_not_read_is_set_aside_and_not_removed(tmp_path, caplog):
    for name in "ab":
        pair(tmp_path, name, "what is this?")
    feed = camera.camera(tmp_path, "", 3)
    assert feed.poll(9) == []
    (line,) = caplog.messages
    assert "2 of them, first a picture, and the student reads clips of 3 frames" in line
    assert [p.parent.name for p in tmp_path.rglob("*.png")] == [BAD] * 2


def test_all_files_that_a_bad_row_names_are_set_aside_and_folders_stay(tmp_path):
    names = [f"{i}{'x' * 230}.png" for i in range(2)]  # alike at their ends
    for name in names:
        (tmp_path / name).write_bytes(picture())
    (tmp_path / "1.json").write_bytes(clip_row([*names, "taken", "bad", "\ud800", 3], "q"))
    feed = camera.camera(tmp_path, "", 3)
    assert feed.poll(9) == []
    assert len(_files(tmp_path / BAD)) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == [BAD, TAKEN]
    pair(tmp_path, "a", "what is this?")
    assert camera.camera(tmp_path, "").poll(9) != []


def test_a_clip_is_set_aside_whole_and_the_oldest_go(tmp_path, monkeypatch):
    monkeypatch.setattr(camera, "MOST_BAD", 6)
    feed = camera.camera(tmp_path, "", 3)
    for clip in range(3):
        for i in range(8 if clip == 1 else 2):
            (tmp_path / f"{clip}-{i}.png").write_bytes(picture())
        names = [f"{clip}-{i}.png" for i in range(8 if clip == 1 else 2)]
        (tmp_path / f"{clip}.json").write_bytes(clip_row([*names, 3], "q"))
        assert feed.poll(9) == []
        kept = {name[:12]: name for name in _files(tmp_path / BAD)}
        assert len(_files(tmp_path / BAD)) == [3, 9, 3][clip]
        assert list(kept) == [f"{clip + 1:012d}"]


def test_what_cannot_be_used_is_set_aside_with_one_line(tmp_path, caplog, monkeypatch):
    (tmp_path / "outside.png").write_bytes(picture())
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "half.png").write_bytes(picture()[:20])
    (folder / "half.json").write_bytes(row("half.png", "q"))
    (folder / "alone.json").write_bytes(row("absent.png", "q"))
    (folder / "out.json").write_bytes(row("../outside.png", "q"))
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "link.json").write_bytes(row("link.png", "q"))
    (folder / "json.json").write_bytes(b"{")
    os.mkfifo(folder / "pipe.json")
    (folder / "folder.json").mkdir()
    (folder / "large.json").write_bytes(b" " * 2**17)
    (folder / "later.png").write_bytes(picture())  # its .json is not there yet
    pair(folder, "good", "good")
    feed = camera.camera(folder, "")
    with caplog.at_level(logging.WARNING):
        assert _asked(feed.poll(20)) == ["good"]
    (line,) = caplog.text.splitlines()
    assert "8 of them, first " in line
    left = sorted(p.name for p in folder.iterdir())
    assert left == [BAD, "good.png", "later.png", TAKEN]
    assert len(list((folder / BAD).iterdir())) == 8 + 2  # with two pictures, of half and link
    assert (tmp_path / "outside.png").exists()
    monkeypatch.setattr(camera, "MOST_BAD", 3)
    (folder / "more.json").write_bytes(b"{")
    assert _asked(feed.poll(20)) == ["good"]
    assert len(list((folder / BAD).iterdir())) == 3


def test_what_was_renamed_is_given_though_another_cannot_be(tmp_path, monkeypatch, caplog):
    for age, name in enumerate("abc"):
        pair(tmp_path, name, name, -age)
    feed, real = camera.camera(tmp_path, ""), os.rename

    def rename(old, new):
        if str(old).endswith("b.json"):
            raise OSError(28, "No space left on device")
        real(old, new)

    with monkeypatch.context() as during:
        during.setattr(os, "rename", rename)
        assert _asked(feed.poll(9)) == ["a", "c"]
        assert "No space left on device" in caplog.text
    found = feed.poll(9)
    assert _asked(found) == ["a", "c", "b"]
    feed.spooled(found[-1].key)
    assert _files(tmp_path) == []


def test_pairs_whose_folder_the_disk_does_not_take_are_given(tmp_path, monkeypatch):
    pair(tmp_path, "a", "a")
    feed = camera.camera(tmp_path, "")

    def broken(folder):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as during:
        during.setattr(camera, "keep_names", broken)
        assert _asked(feed.poll(9)) == ["a"]
    pair(tmp_path, "b", "b")
    found = feed.poll(9)
    assert _asked(found) == ["a", "b"]
    feed.spooled(found[-1].key)
    assert _files(tmp_path) == []
