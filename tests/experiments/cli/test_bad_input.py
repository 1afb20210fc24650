"""Whatever is typed wrongly is one line, exit code 2, nothing written and nothing begun.

The cases are drawn from the commands themselves: every command, argument and option of the parser, and every
setting with its bounds, so that a new one is covered without a line here. What makes a value wrong is its
kind: a number out of its range, a file where a folder belongs, text that nobody can read.
"""

from __future__ import annotations

import io
import multiprocessing.process
import socket
import subprocess
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
import typer
from PIL import Image

from cdc_flower.config import sections
from cdc_flower.data import scenes
from cdc_flower.data.packs import TEXT_COLUMNS
from experiments.bench import calibrate as calibrating
from experiments.cli import app as cli
from experiments.cli import checked
from experiments.cli.settings import of_stage

HUGE = "99999999999999999999"
TEXTS = ("\x00", "a\nb", "\x1b[2J", "\udcff", "x" * 5000)  # NUL, control characters, no UTF-8, very long
NUMBERS = ("abc", "nan", "inf", "-inf", "1e308", "-1e308", HUGE, f"-{HUGE}")
NAME = "n" * 300  # longer than a name on any disk
MISSING = ("nowhere", "a-file/below", NAME)
WRONG: dict[type, tuple[str, ...]] = {
    click.types.IntRange: (*NUMBERS, "1.5", "1e3"),
    click.types.FloatRange: NUMBERS,
    click.types.Choice: ("magic", HUGE),
    checked.Folder: ("a-file", *MISSING),
    checked.File: ("a-folder", *MISSING),
    checked.NewFolder: ("a-file", "a-file/below", f"a-folder/{NAME}", "/proc/nothing"),
    checked.NewFile: ("a-folder", "nowhere/x", "a-file/below", f"a-folder/{NAME}"),
    click.types.StringParamType: (),
    click.types.BoolParamType: (),
}
"""Kind of a value -> what is never one; text is what each command makes of it, see `WORDS`."""
RIGHT = {checked.Folder: "a-folder", checked.File: "a-file", checked.NewFolder: "new", checked.NewFile: "new"}
WORDS = ("data", "preset", "methods", "method", "arms", "like", "mix", "zones", "sets", "mapping", "stage")
"""Text that has to be one of some names, or of some form: a word that is neither is refused."""
BESIDE = {"trace": ("--devices", "3")}
"""Command -> what it needs so that an option is looked at."""
ANY_WORD = {
    *("data.partition-by", "data.style-column", "data.object-column", "run.out-dir", "pair.token-cache"),
    *("data.instruction", "data.split-by"),
    *("data.known-styles", "data.known-objects", "data.known-questions"),
}
"""Settings of which the data alone can tell whether a word is right, or that name a new folder."""


PARSER = typer.main.get_command(cli.app)  # made once: typer makes it anew for every call


def commands(of: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command of the parser, and the words that call it."""
    of = of or PARSER
    if not isinstance(of, click.Group):
        yield path, of
        return
    for name, one in of.commands.items():
        yield from commands(one, (*path, name))


COMMANDS = dict(commands())
SETTINGS = {row["key"]: row for name, cls in sections().items() for row in of_stage(name, cls)}
SET = next(p for p in COMMANDS["compare",].params if p.name == "sets")
TAKES_SETTINGS = cycle(path for path, c in COMMANDS.items() if any(p.name == "sets" for p in c.params))


def called(path: tuple[str, ...], param: click.Parameter, *values: str) -> list[str]:
    """A call in which all is right but `values`, of `param`."""
    arguments: list[str] = []
    for other in COMMANDS[path].params:
        if other is param and isinstance(param, click.Argument):
            arguments += values
        elif isinstance(other, click.Argument) and other.required:
            arguments.append(
                RIGHT.get(type(other.type)) or str(getattr(other.type, "choices", ["scenes"])[0])
            )
    options = []
    if isinstance(param, click.Option):
        options = [one for value in values for one in [param.opts[0], *([] if param.is_flag else [value])]]
    beside = BESIDE.get(path[-1], ())
    return [*path, *options, *(() if param.opts[0] in beside else beside), "--", *arguments]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a file and a folder in it, in which no model, no data and no process may begin."""
    (tmp_path / "a-file").write_text("text")
    (tmp_path / "a-folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "app", PARSER)
    monkeypatch.setenv("CDC_FLOWER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def begun(*_: Any, **__: Any) -> None:
        pytest.fail("work has begun")

    for owner, name in (
        (scenes, "generate"),
        (calibrating, "measure"),
        (torch.nn.Module, "__call__"),
        (transformers.AutoTokenizer, "from_pretrained"),
        (transformers.PreTrainedModel, "from_pretrained"),
        (subprocess.Popen, "__init__"),
        (multiprocessing.process.BaseProcess, "start"),
        (socket.socket, "connect"),
    ):
        monkeypatch.setattr(owner, name, begun)
    return tmp_path


@pytest.fixture
def refusal(command, place):
    """`refusal(arguments, named)`: what is wrong with how the command refuses them; None = as it should."""

    def call(arguments, *named):
        before = sorted(place.rglob("*"))
        try:
            code, out, err = command(*arguments)
        except Exception as raised:
            return f"{ascii(arguments)[:200]}: raised {raised!r}"[:400]
        lines = [line for line in err.splitlines() if not line.startswith("preset ")]
        fine = (code, out, len(lines), sorted(place.rglob("*"))) == (2, "", 1, before)
        fine = fine and lines[0].startswith("error: ") and len(lines[0]) < 1200
        fine = fine and all(name in lines[0] for name in named)
        return None if fine else f"{ascii(arguments)[:200]}: {code} {out[:200]!r} {err[:400]!r}"

    return call


def check(found: Iterator[str | None]) -> None:
    """Fail with all that went wrong, not with the first."""
    wrong = [one for one in found if one]
    assert not wrong, f"{len(wrong)} are not refused as they should:\n" + "\n".join(wrong[:30])


def wrong_of(param: click.Parameter) -> tuple[str, ...] | None:
    """What a value of the parameter's kind never is; None = of a kind that says nothing."""
    return next((values for kind, values in WRONG.items() if isinstance(param.type, kind)), None)


def wrong_calls(path: tuple[str, ...]) -> Iterator[tuple[list[str], str]]:
    """Calls of a command with one thing wrong, and what the refusal must name."""
    yield [*path, "--no-such-option"], "--no-such-option"
    for param in COMMANDS[path].params:
        option = isinstance(param, click.Option)
        flag = option and param.is_flag
        named = param.opts[0] if option else getattr(param, "metavar", None) or str(param.name).upper()
        if not flag:
            for value in ("", *TEXTS, *wrong_of(param)):
                yield called(path, param, value), named
        if param.name in WORDS:
            yield called(path, param, "no such thing"), "no such thing"
        if option and not param.multiple:
            yield called(path, param, "1", "1"), named
        if option and not flag:
            yield [*path, param.opts[0]], named  # and no value


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_what_no_option_can_be_is_refused_naming_it(path, refusal):
    check(refusal(arguments, named) for arguments, named in wrong_calls(path))


def test_every_number_has_bounds_and_every_path_a_kind():
    for path, command in COMMANDS.items():
        assert isinstance(command, checked.Checked)
        for param in command.params:
            where = f"{' '.join(path)} {param.name}"
            assert wrong_of(param) is not None, f"{where}: declare bounds, or the kind of path"
            if isinstance(param.type, click.types.IntRange | click.types.FloatRange):
                assert None not in (param.type.min, param.type.max), where


# --- settings -----------------------------------------------------------------------------------------------


def wrong_settings(row: dict[str, Any]) -> Iterator[str]:
    """Values that a setting must refuse."""
    yield from TEXTS
    if "values" in row or row["type"] == "bool":
        yield from ("", "magic", HUGE)
    elif row["type"] in ("int", "float"):
        yield from ("", *NUMBERS)
        if row["type"] == "int":
            yield "1.5"
        for sign, step in (("ge", -1), ("le", 1), ("gt", 0), ("lt", 0)):
            if sign in row:
                yield str(row[sign] + step)
    elif row["key"] not in ANY_WORD:
        yield "no such thing"


@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_out_of_its_range_is_refused_naming_it(key, refusal):
    named = "" if key == "fleet.mix" else key.partition(".")[2]  # which says "mix ..."
    check(
        refusal(called(next(TAKES_SETTINGS), SET, f"{key}={value}"), named)
        for value in wrong_settings(SETTINGS[key])
    )


def test_every_number_of_the_settings_has_a_lower_and_an_upper_bound():
    for row in SETTINGS.values():
        if row["type"] in ("int", "float") and "values" not in row:
            assert {"ge", "gt"} & set(row), row["key"]
            assert {"le", "lt"} & set(row), row["key"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["run.rounds"], "allowed: key=value"),
        (["=3"], "unknown setting"),
        (["run.roundz=3"], "did you mean run.rounds"),
        (["akd-batch=96"], "did you mean cloud.batch"),
        (["zzz=1"], "`cdc-flower settings` lists them"),
        (["run.rounds=3=4"], "'3=4'"),
        (["run.rounds=3", "run.rounds=4"], "--set run.rounds is given twice; allowed: once"),
        (["run.rounds=3", "run_rounds=3"], "--set run.rounds is given twice; allowed: once"),
        (["cloud.batch=1000000000"], "allowed: a whole number from 1 to 65536"),
        (["pair.lora-rank=100000"], "allowed: a whole number from 1 to 1024"),
        (["uplink.budget=10"], "a message without a sample has up to 272 bytes"),
        (["uplink.noise=0.5"], "allowed: 'uplink.clip' above 0, or 0"),
        (["uplink.clip=2", "uplink.unit=jpeg"], "allowed: 'uplink.unit' = 'tokens', or 0"),
        (["run.devices=2", "run.fail-devices=9:99"], "devices from 0 to 1"),
        (["run.devices=2", "run.min-devices=3"], "allowed: up to 2"),
        (["run.device=cuda"], "'run.device' = 'cuda': torch sees no GPU here; allowed: auto, cpu"),
        (["run.out-dir=a-file"], "'run.out-dir'"),
        (["pair.token-cache=a-file/below"], "'pair.token-cache'"),
        (["pair.folder=a-file"], "'pair.folder'"),
        (["pair.compression=auto"], "'pair.compression' = 'auto'"),
        (["pair.compression=int5"], "'nf4', 'int4', 'int8', 'none' or 'auto'"),
        (["data.pack=a-folder"], "train.parquet: no such file"),
        (["fleet.trace=a-file"], "trace 'a-file'; allowed"),
        (["fleet.mode=async", "run.method=fedavg_lora"], "'fleet.mode' = 'async'"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_by_every_command(settings, named, refusal):
    able = [p for p, c in COMMANDS.items() if any(param.name == "sets" for param in c.params)]
    check(refusal(called(path, SET, *settings), named) for path in able)


# --- packs, studies, and what commands say of one another ---------------------------------------------------


def pack(place, **changes: Any):
    """A pack in a folder; `changes` of its columns."""
    picture = io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "PNG")
    columns: dict[str, Any] = {name: ["x", "x"] for name in TEXT_COLUMNS}
    columns |= {"image": [picture.getvalue()] * 2, **changes}
    table = pa.table({name: values for name, values in columns.items() if values is not None})
    (place / "pack").mkdir()
    for split in ("train", "test"):
        pq.write_table(table, place / "pack" / f"{split}.parquet")
    return place / "pack"


def doubled(folder):
    table = pq.read_table(folder / "test.parquet")
    pq.write_table(table.append_column("answer", table["answer"]), folder / "test.parquet")


def cut(folder):
    whole = (folder / "train.parquet").read_bytes()
    (folder / "train.parquet").write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("changes", "then", "named"),
    [
        ({}, doubled, "test.parquet: column 'answer' is there twice; allowed: once"),
        ({}, cut, "train.parquet: not a readable parquet file"),
        ({}, lambda folder: (folder / "test.parquet").unlink(), "test.parquet: no such file"),
        ({}, lambda folder: (folder / "test.parquet").write_bytes(b""), "not a readable parquet file"),
        ({"qtype": None}, None, "column 'qtype' is missing"),
        ({"answer": [1, 2]}, None, "column 'answer' holds int64, it must hold text"),
        ({"image": ["x", "y"]}, None, "column 'image' holds string, it must hold bytes"),
    ],
)
def test_a_pack_with_other_columns_is_refused_by_every_command_that_takes_one(
    changes, then, named, refusal, place
):
    folder = str(pack(place, **changes))
    if then:
        then(place / "pack")
    check(refusal(arguments, named) for arguments in (["data", "check", folder], ["data", "show", folder]))
    takes = [(path, param) for path, c in COMMANDS.items() for param in c.params if "--data" in param.opts]
    check(refusal(called(path, param, folder), named) for path, param in takes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"question": ["q" * 10**6, "x"]}, "row 0, column 'question': 1000000 characters"),
        ({"user": ["x", "u" * 10**6]}, "row 1, column 'user': 1000000 characters"),
        ({"answer": ["x", "a" * 1001]}, "row 1, column 'answer': 1001 characters"),
        ({"question": ["x", " "]}, "row 1, column 'question': empty"),
        ({"image": [b"junk", b"junk"]}, "row 0, column 'image'"),
    ],
)
def test_a_pack_with_other_rows_is_refused(changes, named, refusal, place):
    folder = str(pack(place, **changes))
    decoded = ["check"] if "image" in changes else ["check", "show"]  # only a check decodes every picture
    check(refusal(["data", command, folder], named) for command in decoded)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[arms", "study 'study.toml'"),
        ("\x00", "study 'study.toml'"),
        ("rounds = 4", "allowed: the tables settings, grid, arms"),
        ("[settings]\nrun.rounds = 4\n'run.rounds' = 5", "'run.rounds' stands there twice"),
        ("[settings]\nrun.rounds = 4\nrun.rounds = 5", "study 'study.toml'"),
        ("[settings]\nrun.rounds = 4\n[grid]\nrun.rounds = [4, 5]", "in settings and in grid"),
        ("[settings]\nrun.out-dir = 'x'", "sets 'run.out-dir'; allowed: the option --out"),
        ("[arms.a]\nrun.out-dir = 'x'", "sets 'run.out-dir'; allowed: the option --out"),
        ("[grid]\nrun.out-dir = ['x', 'y']", "sets 'run.out-dir'; allowed: the option --out"),
        ("[arms.a]\nrun.method = 'magic'", "'run.method' = 'magic'; allowed: cdc"),
        ("[arms.a]\nrun.rounds = 0", "'run.rounds' = 0"),
        ("[arms.a]\nrun.rounds = inf", "'run.rounds' = inf"),
        ("[arms.a]\nrun.rounds = 2020-01-01", "'run.rounds'"),
        ("[arms.a]\ncloud.lr = nan", "'cloud.lr' = nan"),
        ("[arms.a]\nuplink.budget = 10", "'uplink.budget' = 10"),
        ("[arms.'../a']\nrun.rounds = 1", "arm '../a'"),
        ("[arms.'']\nrun.rounds = 1", "arm ''"),
        ("[arms]\na = 4", "arm 'a'"),
        ("", "no arms"),
    ],
)
def test_a_study_that_cannot_be_run_is_refused(text, named, refusal, place):
    (place / "study.toml").write_text(text)
    check([refusal(["compare", "--arms", "study.toml"], named)])


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("compare --arms a-folder", "unknown study 'a-folder'"),
        ("compare --methods cdc,cdc", "at most once"),
        ("compare --methods ,", "at most once"),
        ("compare --methods cdc --arms fedavg", "--methods and --arms"),
        ("compare --set run.out-dir=x", "allowed: the option --out"),
        ("compare --data scenes --set data.pack=scenes", "--data and --set data.pack; allowed: one of them"),
        ("compare --seeds 2 --set run.seed=2147483647", "'run.seed' = 2147483648"),
        ("compare --workers 99999", "'--workers': 99999 is not in the range"),
        ("compare --data a-file", "'data.pack'"),
        ("simulate --engine fleet --workers 9999", "--workers 9999; allowed: up to"),
        ("simulate --workers 2", "--workers with --engine local"),
        ("simulate --method cdc --set run.method=static", "--method and --set run.method"),
        ("simulate --resume a-folder", "config.json is missing"),
        ("pretrain --out a-file", "'--out': 'a-file': is a file; allowed: a folder"),
        ("probe uplink --out a-file", "'--out': 'a-file': is a file; allowed: a folder"),
        ("probe uplink --seeds 2 --set run.seed=2147483647", "'run.seed' = 2147483648"),
        ("export a-folder new", "config.json is missing"),
        ("report a-folder", "comparison.json is missing"),
        ("leaderboard a-folder", "comparison.json is missing"),
        ("fleet trace --devices 3 --out x.txt", "allowed: a file ending in .parquet or .json"),
        ("fleet profiles a-file", "profiles 'a-file'"),
        ("fleet nothing", "No such command 'nothing'; allowed: profiles, costs, trace"),
        ("comprae", "No such command 'comprae'; did you mean compare? allowed: compare, simulate,"),
        ("data import-videos a-folder new --map file", "--map 'file'; allowed: column=field"),
        ("data import-videos a-folder new", "0 files named *.csv or *.jsonl"),
        ("data import-videos a-folder new --table ../a-file", "that ends in .csv or .jsonl"),
        ("data import msrvtt-qa a-folder new", "'train_qa.json' or 'test_qa.json' is not in"),
        ("data import-jsonl a-folder new --map image", "--map 'image'; allowed: column=field"),
        ("data import-jsonl a-folder new", "allowed: exactly one, or name it"),
        ("nothing", "No such command 'nothing'"),
    ],
)
def test_what_a_command_cannot_do_is_refused(line, named, refusal):
    check([refusal(line.split(), named)])
