"""No table is cut or torn, whatever the terminal's width: what is left out is named."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from experiments.report.tables import INTERVALS, Fitted, console_of, show

HEADS = ("method", "acc\ndrift %", "bytes", "about")
ROWS = [
    ("fedavg_lora", "91.2 ±1.2", "16.6 MB", "devices train the adapter on true labels, the server averages"),
    ("cdc [paper]", "75.3", "1.46 MB", "the cloud distils"),
]
TABLE = Fitted(HEADS, ROWS, ("bytes", INTERVALS), wraps=("about",), title="scenes: 8 devices")


def lines(table, width):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(table)
    return console.file.getvalue().splitlines()


def words(shown):
    return " ".join(shown).split()


@pytest.mark.parametrize("width", [120, 80, 60, 44, 38])
def test_every_word_that_is_shown_is_whole_and_within_the_width(width):
    shown = lines(TABLE, width)
    assert max(map(cell_len, shown)) <= width
    said = words(shown)
    assert not any("…" in word for word in said)
    for text in ("fedavg_lora", "[paper]", "91.2", "adapter", "averages", "distils"):
        assert text in said


@pytest.mark.parametrize("width", [100, 80, 60, 44])
def test_two_texts_of_several_lines_share_the_width_and_lose_nothing(width):
    name, text = "HuggingFaceTB/SmolVLM2-256M-Video-Instruct", "hidden states of the vision_feature_layer"
    shown = lines(
        Fitted(("family", "checkpoints", "tap"), [("smolvlm", name, text)], wraps=("checkpoints", "tap")),
        width,
    )
    assert max(map(cell_len, shown)) <= width
    rows = [line for line in shown if "─" not in line][1:]
    assert sorted("".join(words(rows))) == sorted("smolvlm" + name + text.replace(" ", ""))


def test_columns_go_in_their_order_and_a_line_says_which():
    assert "too narrow" not in " ".join(lines(TABLE, 80))
    assert "too narrow for: bytes; a wider" in " ".join(words(lines(TABLE, 44)))
    shown = " ".join(words(lines(TABLE, 36)))
    assert "too narrow for: bytes, intervals;" in shown
    assert "±" not in shown


def test_a_pipe_gets_every_column_on_one_line_a_row(capsys):
    show(TABLE, "a line\nof two")
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if ROWS[0][-1] in line]
    assert len(shown) == 1 + 2 + 1 + 2 + 2  # title, head, rule, rows, lines


def test_a_line_is_wrapped_between_words_on_a_terminal_and_whole_in_a_pipe(capsys, monkeypatch):
    text = "not covered: " + ", ".join(["uncertainty"] * 12)
    show(text)
    assert capsys.readouterr().out == text + "\n"
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich: a terminal
    monkeypatch.setenv("COLUMNS", "80")
    show(text)
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 80
    assert " ".join(" ".join(shown).split()) == text


@pytest.mark.parametrize("asked", [True, False])
def test_a_terminal_that_wants_no_colour_gets_no_code_of_any_style(asked, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1") if asked else monkeypatch.delenv("NO_COLOR", raising=False)
    console = console_of()
    console.file = io.StringIO()
    console.print(TABLE)
    console.print("[bold]bold[/] [dim]dim[/] [red]red[/]")
    assert ("\x1b" in console.file.getvalue()) is not asked
