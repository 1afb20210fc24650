"""A command refuses what no command can use; the kinds of a path say which path is none."""

from pathlib import Path
from typing import Annotated

import click
import pytest
import typer

from experiments.cli import app as cli
from experiments.cli import simulate as simulating
from experiments.cli.checked import App, File, Folder, NewFile, NewFolder, Stopped, goes_on, typed


@pytest.fixture
def called():
    """A command with an option of every sort: its arguments as it gets them, or the refusal."""
    app, given = App(), []

    @app.command()
    def command(
        words: Annotated[list[str] | None, typer.Argument()] = None,
        name: str = "x",
        share: Annotated[float, typer.Option(min=0, max=1)] = 0.5,
        sets: Annotated[list[str] | None, typer.Option("--set")] = None,
        live: Annotated[bool, typer.Option("--live")] = False,
    ) -> None:
        given[:] = [words, name, share, sets, live]

    def call(*arguments):
        app(args=list(arguments), standalone_mode=False)
        return given

    return call


def test_what_can_be_used_is_handed_over(called):
    found = called("a", "b", "--name", "写真", "--share", "1", "--set", "a=1", "--set", "a=2", "--live")
    assert found == [["a", "b"], "写真", 1.0, ["a=1", "a=2"], True]
    assert called()[1:3] == ["x", 0.5]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--name", "a", "--name", "a"], "given twice; allowed: once"),
        (["--live", "--live"], "given twice; allowed: once"),
        (["--name", ""], "empty; allowed: a value"),
        (["a", ""], "empty; allowed: a value"),
        (["--set", "a=1", "--set", "\x00"], r"'\\x00': character"),
        (["--share", "nan"], "nan is no number; allowed: a finite one"),
    ],
)
def test_what_no_command_can_use_is_refused(called, arguments, says):
    with pytest.raises(click.BadParameter, match=says):
        called(*arguments)


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (Folder(), ["folder"], ["file", "new", "file/below"]),
        (File(), ["file"], ["folder", "new", "file/below"]),
        (NewFolder(), ["folder", "new", "new/below"], ["file", "file/below"]),
        (NewFile(), ["file", "new"], ["folder", "new/below", "file/below"]),
    ],
)
def test_a_path_is_of_its_kind(kind, right, wrong, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").write_text("x")
    assert [kind.convert(path, None, None) for path in right] == [Path(path) for path in right]
    for path in wrong:
        with pytest.raises(click.BadParameter, match=f"'{path}'.* allowed: "):
            kind.convert(path, None, None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_ctrl_c_says_where_what_was_done_is_and_how_it_goes_on():
    app = App()

    @app.command()
    def command() -> None:
        with goes_on(lambda: "3 rounds are in 'x'; `again` goes on"):
            raise KeyboardInterrupt

    with pytest.raises(Stopped, match="3 rounds are in 'x'; `again` goes on") as stopped:
        app([], standalone_mode=False)
    assert stopped.value.exit_code == 130


def test_the_command_that_goes_on_is_the_one_that_was_typed_and_replaces_nothing():
    app, said = App(), []

    @app.command()
    def command(
        out: str = "x",
        replace: Annotated[bool, typer.Option("--replace")] = False,
        resume: Annotated[bool, typer.Option("--resume")] = False,
    ) -> None:
        said[:] = [typed("--resume").partition(" ")[2], typed().partition(" ")[2]]

    app(["--replace", "--out", "a  b"], standalone_mode=False)
    assert said == ["--out 'a  b' --resume", "--replace --out 'a  b'"]
    app(["--resume"], standalone_mode=False)
    assert said == ["--resume", "--resume"]


def test_a_command_to_paste_is_whole_on_a_line_of_its_own(command, monkeypatch):
    line = f"cdc-flower compare --out 'a  b' {'x' * 1000} --resume"

    def interrupted(*_, **__):
        with goes_on(lambda: f"what was done is in 'a  b'; this goes on:\n{line}"):
            raise KeyboardInterrupt

    monkeypatch.setattr(simulating, "assignments", interrupted)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    code, _, err = command("simulate")
    assert code == 130
    assert err.splitlines()[-2:] == ["interrupted: what was done is in 'a b'; this goes on:", line]


def helps(of, ctx=None):
    """Every help text of a parser, in 80 columns."""
    own = click.Context(of, parent=ctx, info_name=of.name, terminal_width=80, max_content_width=80)
    yield of, of.get_help(own)
    for one in getattr(of, "commands", {}).values():
        yield from helps(one, own)


def test_help_is_whole_in_80_columns_and_names_every_argument():
    for command, text in helps(typer.main.get_command(cli.app)):
        assert max(map(len, text.splitlines())) <= 80
        assert "..." not in text.partition("Commands:")[2], "a summary that was cut"
        assert "\\[" not in text, "markup for rich"
        for param in command.params:
            if isinstance(param, click.Argument):
                assert param.help, f"{command.name} {param.name}"
        assert text.count("rguments:") == any(isinstance(p, click.Argument) for p in command.params)
