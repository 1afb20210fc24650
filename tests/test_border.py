"""What people type is printable, and a place to write is tried without leaving a trace."""

import pytest

from cdc_flower.border import MOST_CHARS, MOST_WORDS, no_file, no_folder, odd_text, one_line


@pytest.mark.parametrize("text", ["\x00", "a\nb", "\x1b[31m", "\udcff", "\x7f", "x" * (MOST_CHARS + 1)])
def test_what_nobody_can_read_is_odd(text):
    assert "allowed: " in odd_text(text)


@pytest.mark.parametrize("text", ["", "gelbe Äpfel", "写真", "x" * MOST_CHARS, "a=1,b=50%"])
def test_any_script_is_text(text):
    assert odd_text(text) is None


def test_a_message_is_one_printable_line_that_keeps_both_ends():
    found = one_line("bad \x00 \udcff\n" + "x" * 10**6 + " allowed: this")
    assert found.startswith(r"bad \x00 \udcff xxx")
    assert found.endswith("allowed: this")
    assert len(found) <= MOST_WORDS + 5
    found.encode("utf-8")


def test_a_folder_is_one_that_can_be_made_and_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("x")
    assert no_folder(tmp_path / "a" / "b") is None
    assert no_folder(tmp_path) is None
    assert no_folder(tmp_path / "file") == "is a file; allowed: a folder"
    assert "allowed: a path of folders" in no_folder(tmp_path / "file" / "b")
    assert "allowed: a folder that can be written" in no_folder(tmp_path / ("n" * 300))
    assert "allowed: a folder that can be written" in no_folder(tmp_path / "a\x00b")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_in_which_nobody_can_make_one_is_refused(tmp_path):
    assert "allowed: a folder that can be written" in no_folder(tmp_path.__class__("/proc/nothing"))


def test_a_file_is_one_in_a_folder_that_is_there(tmp_path):
    (tmp_path / "file").write_text("x")
    assert no_file(tmp_path / "new.json") is None
    assert no_file(tmp_path / "file") is None
    for bad in (tmp_path, tmp_path / "a" / "x.json", tmp_path / "file" / "x", tmp_path / ("n" * 300)):
        assert "allowed: a file in a folder that is there" in no_file(bad)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
