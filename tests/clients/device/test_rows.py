"""Claims about rows: a name is a file of the folder, sizes are bounded, hostile bytes refused in words."""

from __future__ import annotations

import contextlib
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.device import rows
from clients.device.feed import MOST_FRAMES
from clients.device.rows import BadItem, item, named, read
from tests.clients.device.feeding import clip_row, picture, row


def test_a_row_names_a_picture_of_the_folder(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(3))
    found = item(tmp_path, row("a.png", "what  is\nthis?"), "k", follow=False)
    assert (found.question, found.picture, found.key) == ("what is this?", picture(3), "k")


def test_a_row_names_the_frames_of_a_clip_in_their_order(tmp_path):
    for shade, name in enumerate("ab"):
        (tmp_path / f"{name}.png").write_bytes(picture(shade))
    found = item(tmp_path, clip_row(["b.png", "a.png", "b.png"], "what moves?"), "k", False, 3)
    assert found.picture == (picture(1), picture(0), picture(1))
    one = item(tmp_path, clip_row(["a.png"], "what moves?"), "k", False, 2)
    assert one.picture == (picture(0), picture(0))
    long = ["a.png", *["absent.png"] * 9, "b.png"]  # of which two are read
    assert item(tmp_path, clip_row(long, "what moves?"), "k", False, 2).picture == (picture(0), picture(1))


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ([], "'frames' is no list of 1 to 256"),
        ("a.png", "'frames' is no list of 1 to 256"),
        (["a.png"] * (MOST_FRAMES + 1), "'frames' is no list of 1 to 256"),
        (["a.png", 3], "'frames' is no text"),
        (["a.png", "../a.png"], r"'frames' = '../a.png'; allowed: the name of a file"),
        (["a.png", "absent.png"], "'absent.png': No such file"),
        (["a.png", "half.png"], "'half.png': not a readable picture"),
        (["a.png", "b.png", "c.png"], "'c.png': more than"),
        (["a.png", "small.png"], "'small.png' has 4x3 pixels, the first frame 8x6"),
    ],
)
def test_frames_that_cannot_be_used_are_refused(tmp_path, monkeypatch, frames, says):
    (tmp_path / "a.png").write_bytes(picture())
    for shade, name in enumerate("bc"):
        (tmp_path / f"{name}.png").write_bytes(picture(shade + 1))
    (tmp_path / "half.png").write_bytes(picture()[:40])
    (tmp_path / "small.png").write_bytes(picture(size=(4, 3)))
    monkeypatch.setattr(rows, "MAX_BYTES", len(picture()) * 5 // 2)  # of all frames
    with pytest.raises(BadItem, match=says):
        item(tmp_path, clip_row(frames, "q"), "k", True, 3)


def test_pixels_of_a_clip_are_bounded_together_and_each_file_counts_once(tmp_path, monkeypatch):
    for shade, name in enumerate("abc"):
        (tmp_path / f"{name}.png").write_bytes(picture(shade))
    monkeypatch.setattr(rows, "MOST_PIXELS", 2 * 8 * 6)
    item(tmp_path, clip_row(["a.png", "b.png", "a.png"], "q"), "k", True, 3)
    with pytest.raises(BadItem, match="'c.png': frames of more than 96 pixels together"):
        item(tmp_path, clip_row(["a.png", "b.png", "c.png"], "q"), "k", True, 3)


@pytest.mark.parametrize(("frames", "of"), [(3, row("a.png", "q")), (0, clip_row(["a.png"], "q"))])
def test_a_row_that_the_student_does_not_read_is_refused(tmp_path, frames, of):
    (tmp_path / "a.png").write_bytes(picture())
    with pytest.raises(BadItem, match="the student reads"):
        item(tmp_path, of, "k", True, frames)


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b'{"frames": ["a.png", "b.png", 3, "../c.png", "a.png"]}', ("a.png", "b.png")),
        (b'{"image": "a.png", "question": ""}', ("a.png",)),
        (b'{"image": "/a.png"}', ()),
        (b'{"frames": ["\\ud800", "a.png"]}', ("a.png",)),
        *((data, ()) for data in (b"", b"[]", b"{", b"[" * 10**5, b'{"frames": "a.png"}')),
    ],
)
def test_files_are_known_of_a_row_that_cannot_be_used(data, names):
    assert named(data) == names


def test_a_row_is_about_a_picture_or_a_clip():
    with pytest.raises(BadItem, match="'image' and 'frames'; allowed: "):
        read(b'{"image": "a", "frames": ["a"], "question": "q"}')


@pytest.mark.parametrize(
    "name", ["../a.png", "/etc/passwd", "..", ".", "", ".hidden", "x/a.png", "a\0.png", "\ud800"]
)
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "in").mkdir()
    with pytest.raises(BadItem):
        item(tmp_path / "in", row(name, "q"), "k", follow=True)


def opened_under(folder) -> list[str]:
    """Files of `folder` that this process holds open; those of other tests, freed meanwhile, do not count."""
    targets = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            targets.append(os.readlink(f"/proc/self/fd/{number}"))
    return [target for target in targets if target.startswith(str(folder))]


def test_what_is_no_file_or_a_link_where_links_are_not_followed_is_refused(tmp_path, monkeypatch):
    (tmp_path / "out.png").write_bytes(picture())
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    os.mkfifo(folder / "pipe.png")  # opening one would wait for a writer
    (folder / "folder.png").mkdir()
    (folder / "text.png").write_bytes(b"no picture")
    (folder / "large.png").write_bytes(picture() + b"0" * 500)
    assert item(folder, row("link.png", "q"), "k", follow=True).picture == picture()
    monkeypatch.setattr(rows, "MAX_BYTES", 400)
    with (folder / "text.png").open("rb"):
        assert len(opened_under(tmp_path)) == 1
    for name in ("link", "pipe", "folder", "text", "large", "absent"):
        with pytest.raises(BadItem, match=name):
            item(folder, row(f"{name}.png", "q"), "k", follow=False)
    assert not opened_under(tmp_path)  # nothing stays open


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"[]", b"1", b"[" * 10**5, b"\xff", b'{"image": 1, "question": "q"}', b'{"image": "a"}'),
        *(row("a", " "), json.dumps({"image": "a", "question": "x" * 2**16}).encode()),
    ],
)
def test_a_row_that_says_nothing_usable_is_refused(data):
    with pytest.raises(BadItem):
        read(data)


@settings(max_examples=30)
@given(
    st.binary(max_size=200)
    | st.text(max_size=60).map(lambda text: row(text, text))
    | st.lists(st.text(max_size=9), max_size=3).map(lambda names: clip_row(names, "q"))
)
def test_whatever_a_row_is_the_name_is_one_component(data):
    try:
        found = read(data)
    except BadItem:
        return
    assert found.files
    for name in found.files:
        assert name == os.path.basename(name)
        assert "\0" not in name
    assert found.question.strip()
