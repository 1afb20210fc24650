"""Claims about a folder as a feed: each row is read once, in order, across restarts and while it grows."""

from __future__ import annotations

import logging
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc_flower.config import ConfigError
from clients.device import feeds, rows
from clients.device.feeds import FEEDS, QUESTIONS, first_rows
from tests.clients.device.feeding import clip_row, picture, row


@pytest.fixture
def folder(tmp_path):
    """A folder with two pictures."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(picture(ord(name[0])))
    return tmp_path


def _asked(items):
    return [item.question for item in items]


def test_rows_are_given_until_they_are_spooled_and_appended_ones_follow(folder):
    feed = FEEDS["folder"](folder, "")
    assert list(feed.poll(9)) == []
    file = (folder / QUESTIONS).open("ab", buffering=0)
    file.write(row("a.png", "one") + row("b.png", "two") + b"\n" + row("a.png", "three"))
    assert _asked(feed.poll(2)) == ["one", "two"]
    first = feed.poll(3)
    assert _asked(first) == ["one", "two", "three"]
    feed.spooled(first[1].key)
    assert _asked(feed.poll(9)) == ["three"]
    file.write(row("b.png", "four"))
    assert _asked(feed.poll(9)) == ["three", "four"]
    assert _asked(FEEDS["folder"](folder, first[0].key).poll(9)) == ["two", "three", "four"]
    assert _asked(FEEDS["folder"](folder, first[2].key).poll(9)) == ["four"]
    assert list(feed.asked(1)) == []
    file.close()


def test_a_row_that_is_being_written_is_awaited_and_the_last_needs_no_line_end(folder):
    feed, whole = FEEDS["folder"](folder, ""), row("a.png", "one")
    for end in range(len(whole)):
        (folder / QUESTIONS).write_bytes(whole[:end])
        assert bool(feed.poll(9)) == (end == len(whole) - 1)  # without its line end
    (folder / QUESTIONS).write_bytes(whole + row("b.png", "two"))
    assert _asked(feed.poll(9)) == ["one", "two"]


def test_bad_rows_are_left_out_with_one_line_for_each_reading(folder, caplog):
    rows_ = [b"{}\n", row("../a.png", "q"), row("absent.png", "q"), b"x" * (3 * rows.MOST_ROW) + b"\n"]
    (folder / QUESTIONS).write_bytes(b"".join(rows_) + row("a.png", "good") + b"{}\n")
    feed = FEEDS["folder"](folder, "")
    with caplog.at_level(logging.WARNING):
        assert _asked(feed.poll(9)) == ["good"]
        assert _asked(feed.poll(9)) == ["good"]
    (line,) = caplog.text.splitlines()
    assert "5 of them, first the row that ends at byte 3: field 'image' is no text" in line
    assert len(line) < 400


def test_of_many_rows_without_pictures_there_is_one_line_with_the_place_that_was_looked_in(folder, caplog):
    (folder / QUESTIONS).write_bytes(b"".join(row(f"missing-{i}.png", "q") for i in range(360)))
    with caplog.at_level(logging.WARNING):
        assert FEEDS["folder"](folder, "").poll(9) == []
    (line,) = caplog.text.splitlines()
    assert "360 of them" in line
    assert f"'missing-0.png': No such file or directory in '{folder}'" in line


def test_rows_of_no_use_are_read_a_bounded_number_at_a_time_and_not_again(folder, caplog, monkeypatch):
    monkeypatch.setattr(feeds, "MOST_ROWS", 10)
    bad = b"".join(row("absent.png", f"{i}") for i in range(12))
    (folder / QUESTIONS).write_bytes(bad + b"\n" * 12 + row("a.png", "good") + b"bad\n")
    feed = FEEDS["folder"](folder, "")
    places = []
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert list(feed.poll(1)) == []
            places.append(feed.place())
        assert ["10 of them" in caplog.messages[0], "2 of them" in caplog.messages[1]] == [True, True]
        assert _asked(feed.poll(1)) == ["good"]
    assert feed.place() == ""  # a row that waits is in front of it
    for place in places:
        again = FEEDS["folder"](folder, place)
        caplog.clear()
        found = [item for _ in range(3) for item in again.poll(1)]
        assert found[-1].question == "good"
        again.spooled(found[-1].key)
        assert again.place() == found[-1].key
        assert list(again.poll(1)) == []
        assert again.place().startswith(f"row {(folder / QUESTIONS).stat().st_size} ")
        caplog.clear()
        assert list(FEEDS["folder"](folder, again.place()).poll(1)) == []
        assert caplog.messages == []


@pytest.mark.parametrize("kind", ["folder", "camera"])
def test_the_first_rows_are_looked_at_without_being_taken(folder, kind):
    assert first_rows(kind, folder, 0) == ""  # nothing is there yet
    if kind == "folder":
        (folder / QUESTIONS).write_bytes(row("a.png", "q") + b"\n" + row("absent.png", "q"))
    else:
        (folder / "1.json").write_bytes(row("a.png", "q"))
        (folder / "2.json").write_bytes(row("absent.png", "q"))
    before = sorted(folder.iterdir())
    said = first_rows(kind, folder, 0)
    assert said.startswith("1 of the first 2 rows cannot be used: ")
    assert said.endswith(f"'absent.png': No such file or directory in '{folder}'")
    assert ("row 3" if kind == "folder" else "2.json") in said
    assert sorted(folder.iterdir()) == before


def test_a_first_row_that_is_too_long_is_one_row(folder):
    (folder / QUESTIONS).write_bytes(b"x" * (3 * rows.MOST_ROW) + b"\n" + row("absent.png", "q"))
    assert first_rows("folder", folder, 0).startswith("2 of the first 2 rows cannot be used")


def test_of_the_first_rows_it_is_said_that_the_student_reads_something_else(folder):
    (folder / QUESTIONS).write_bytes(row("a.png", "q"))
    assert "a picture, and the student reads clips of 3 frames" in first_rows("folder", folder, 3)
    (folder / QUESTIONS).write_bytes(clip_row(["a.png"], "q"))
    assert first_rows("folder", folder, 3) == ""
    assert "frames of a clip, and the student reads pictures" in first_rows("folder", folder, 0)


def test_a_file_that_was_written_anew_is_read_from_its_beginning(folder, caplog):
    (folder / QUESTIONS).write_bytes(row("a.png", "one") + row("a.png", "two"))
    key = FEEDS["folder"](folder, "").poll(9)[-1].key
    (folder / QUESTIONS).write_bytes(row("b.png", "another, and longer") + row("b.png", "two"))
    with caplog.at_level(logging.WARNING):
        assert len(FEEDS["folder"](folder, key).poll(9)) == 2
    assert "another file" in caplog.text
    assert len(FEEDS["folder"](folder, "of another feed").poll(9)) == 2


def test_a_file_of_questions_that_never_ends_is_none(folder, caplog):
    feed = FEEDS["folder"](folder, "")
    os.mkfifo(folder / QUESTIONS)  # to open it would wait for a writer
    assert list(feed.poll(9)) == []
    (folder / QUESTIONS).unlink()
    (folder / QUESTIONS).symlink_to("/dev/zero")
    assert list(feed.poll(9)) == []
    assert caplog.text.count("is no file") == 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.lists(st.sampled_from(["write", "poll", "kill", "bad"]), max_size=12))
def test_whatever_happens_in_which_order_each_row_is_spooled_once(folder, steps):
    (folder / QUESTIONS).write_bytes(b"")
    written, spooled, fed = [], [], ""
    feed = FEEDS["folder"](folder, fed)
    for number, step in enumerate([*steps, "poll", "poll", "poll", "poll"]):
        with (folder / QUESTIONS).open("ab") as file:
            if step == "write":
                written.append(f"question {number}")
                file.write(row("a.png", written[-1]))
            if step == "bad":
                file.write(b"bad\n")
        if step == "kill":  # after the transaction, before the feed hears of it
            items = feed.poll(2)
            spooled += _asked(items)
            fed = items[-1].key if items else fed
            feed = FEEDS["folder"](folder, fed)
        if step == "poll" and (items := feed.poll(3)):
            spooled += _asked(items)
            fed = items[-1].key
            feed.spooled(fed)
    assert spooled == written


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for name in feeds.FEEDS:
        with pytest.raises(ConfigError, match="feed-path"):
            FEEDS[name](tmp_path / "file", "")
        FEEDS[name](tmp_path / name, "")  # made
