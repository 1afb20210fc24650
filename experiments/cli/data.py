"""The commands `cdc-flower data ...`: check, show, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cdc_flower.config import ConfigError, parse
from experiments.cli.checked import App, Folder, NewFile, NewFolder
from experiments.cli.options import Preset, Sets, chosen_settings
from experiments.cli.saying import say

data_app = App(no_args_is_help=True, help="Check, look at and import data packs.")


@data_app.command("check")
def data_check(folder: Annotated[Path, typer.Argument(click_type=Folder(), help="A data pack.")]) -> None:
    """Validate a pack: files, columns, rows, pictures or frames."""
    from cdc_flower.data.packs import read_pack

    pack = read_pack(folder)
    for name, frame, images in (
        ("train", pack.train, pack.train_images),
        ("test", pack.test, pack.test_images),
    ):
        counts = {
            column: frame[column][frame[column] != ""].nunique() for column in ("answer", "qtype", "user")
        }
        say(
            f"{name}: {len(frame):,} questions on {len(images):,} {'clips' if pack.clips else 'pictures'}, "
            f"{counts['answer']} answers, "
            f"{counts['qtype']} kinds, {counts['user']} users"
        )
    say(f"{pack.name}: fine\nsha256 {pack.digest}")


@data_app.command("show")
def data_show(
    folder: Annotated[
        str | None,
        typer.Argument(metavar="FOLDER", help="A pack folder; default scenes.", show_default=False),
    ] = None,
    preset: Preset = None,
    sets: Sets = None,
    html: Annotated[
        Path | None,
        typer.Option(click_type=NewFile(), help="File for a contact sheet: samples of each kind."),
    ] = None,
) -> None:
    """Show a pack as a run would see it: samples by domain and kind, known and new values, what to mind."""
    config = parse(chosen_settings(folder, preset, sets))

    from cdc_flower.data import packs
    from experiments.report import pack as report
    from experiments.report.tables import show

    pack = packs.load(config.data, seed=1)
    show(*report.shown(pack, config))
    if html:
        report.write_sheet(pack, config, html)
        say(f"contact sheet: {html}")


Pack = Annotated[Path, typer.Argument(click_type=NewFolder(), help="Folder of the pack to write.")]
Mapping = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="COLUMN=FIELD", help="Pack column and its name in the source."),
]
TestShare = Annotated[
    float,
    typer.Option(
        min=0,
        max=0.99,
        help="Share of pictures held out without a test split; default 0.2.",
        show_default=False,
    ),
]


Replace = Annotated[bool, typer.Option("--replace", help="Overwrite a pack that is there.")]
Frames = Annotated[
    int,
    typer.Option(
        min=1,
        max=1024,
        help="At most so many frames of a video, evenly spread; default 16.",
        show_default=False,
    ),
]
LongestSide = Annotated[
    int,
    typer.Option(
        min=16, max=4096, help="Pixels of a frame's longest side, at most; default 480.", show_default=False
    ),
]
Quality = Annotated[
    int, typer.Option(min=1, max=100, help="Of a frame's JPEG; default 85.", show_default=False)
]


def _say(line: str) -> None:
    say(line, err=True)


def _mapping(texts: list[str] | None) -> dict[str, str]:
    found = {}
    for text in texts or []:
        column, equals, name = text.partition("=")
        if not equals:
            raise ConfigError(f"--map {text!r}; allowed: column=field")
        found[column.strip()] = name.strip()
    return found


@data_app.command("import")
def data_import(
    name: Annotated[
        str,
        typer.Argument(
            help="vqav2, aokvqa, aokvqa-choice, coco, nocaps, vqav2-aokvqa, vqav2-aokvqa-choice, "
            "coco-nocaps; of clips: msrvtt-qa, msrvtt-captions, msrvtt-qa-captions, activitynet-qa."
        ),
    ],
    source: Annotated[
        Path,
        typer.Argument(click_type=Folder(), help="The folder that the downloaded files are in, or below."),
    ],
    out: Pack,
    missing: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of pictures or videos that may be absent or broken; default 0.01.",
            show_default=False,
        ),
    ] = 0.01,
    pictures: Annotated[
        int | None, typer.Option(min=1, max=10**8, help="At most so many pictures or videos of each part.")
    ] = None,
    test_share: TestShare = 0.2,
    frames: Frames = 16,
    longest_side: LongestSide = 480,
    quality: Quality = 85,
    replace: Replace = False,
) -> None:
    """Make the pack OUT from a published data set as it is downloaded (docs/guide.md names the files)."""
    from cdc_flower.data.published.write import import_published
    from cdc_flower.data.video import Sampling

    import_published(
        name,
        source,
        out,
        missing=missing,
        pictures=pictures,
        test_share=test_share,
        sampling=Sampling(frames, longest_side, quality),
        replacing=replace,
        say=_say,
    )
    data_check(out)


@data_app.command("import-videos")
def data_import_videos(
    source: Annotated[Path, typer.Argument(click_type=Folder(), help="Holds the videos and the table.")],
    out: Pack,
    table: Annotated[
        str, typer.Option(help="Name of the file in SOURCE; default: the only *.csv or *.jsonl there.")
    ] = "",
    mapping: Mapping = None,
    missing: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of videos that may be absent or broken; default 0.", show_default=False
        ),
    ] = 0.0,
    test_share: TestShare = 0.2,
    frames: Frames = 16,
    longest_side: LongestSide = 480,
    quality: Quality = 85,
    replace: Replace = False,
) -> None:
    """Make the pack OUT of clips from a folder of videos and a CSV or JSONL file (file, question, answer)."""
    from cdc_flower.data.video import Sampling
    from cdc_flower.data.video_folder import from_videos

    from_videos(
        source,
        out,
        table=table,
        mapping=_mapping(mapping),
        sampling=Sampling(frames, longest_side, quality),
        missing=missing,
        test_share=test_share,
        replacing=replace,
        say=_say,
    )
    data_check(out)


@data_app.command("import-jsonl")
def data_import_jsonl(
    source: Annotated[Path, typer.Argument(click_type=Folder(), help="Holds the pictures and the file.")],
    out: Pack,
    jsonl: Annotated[
        str, typer.Option(help="Name of the file in SOURCE; default: the only *.jsonl or *.csv there.")
    ] = "",
    mapping: Mapping = None,
    test_share: TestShare = 0.2,
    replace: Replace = False,
) -> None:
    """Make the pack OUT from a folder of pictures and a JSONL or CSV file (image, question, answer)."""
    from cdc_flower.data.importers import from_jsonl

    from_jsonl(
        source,
        out,
        jsonl=jsonl,
        mapping=_mapping(mapping),
        test_share=test_share,
        replacing=replace,
        say=_say,
    )
    data_check(out)


@data_app.command("import-datasets")
def data_import_datasets(
    source: Annotated[str, typer.Argument(help="A dataset saved on disk, or its name on the hub.")],
    out: Pack,
    mapping: Mapping = None,
    subset: Annotated[str | None, typer.Option(help="Configuration of a hub dataset.")] = None,
    train_split: Annotated[
        str, typer.Option(help="Split that becomes train, default train.", show_default=False)
    ] = "train",
    test_split: Annotated[str | None, typer.Option(help="Split that becomes test.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, max=10**8, help="At most so many rows of each split.")
    ] = None,
    test_share: TestShare = 0.2,
    replace: Replace = False,
) -> None:
    """Make the pack OUT from a Hugging Face dataset."""
    from cdc_flower.data.importers import from_datasets

    from_datasets(
        source,
        out,
        _mapping(mapping),
        subset=subset,
        train_split=train_split,
        test_split=test_split,
        limit=limit,
        test_share=test_share,
        replacing=replace,
        say=_say,
    )
    data_check(out)
