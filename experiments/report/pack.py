"""What `cdc-flower data show` prints of a pack, and its contact sheet: one page that needs no other file."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cdc_flower.config import Config
from cdc_flower.data import look
from cdc_flower.data.domains import DOMAINS, domains
from cdc_flower.data.features import open_picture
from cdc_flower.data.packs import Pack
from cdc_flower.data.video import spread
from experiments.report.clip import url
from experiments.report.tables import Fitted
from experiments.report.terminal import share

SHOWN = 15  # values of an axis in the terminal
EACH, MOST = 4, 240  # samples of a domain and kind on the sheet, and of all
SIDE, SIDE_OF_FRAME, FRAMES = 160, 80, 12  # pixels; frames of a clip that are shown


def summary(pack: Pack) -> list[str]:
    """What each split holds, a line each."""
    lines = []
    for name, frame, images in (
        ("train", pack.train, pack.train_images),
        ("test", pack.test, pack.test_images),
    ):
        what = "clips" if pack.clips else "pictures"
        parts = [f"{len(frame):,} questions on {len(images):,} {what}"]
        if pack.clips:
            counts = [len(of) for of in _some(images, 200)]
            parts.append(f"{_span(counts)} frames a clip")
            if "fps" in frame.columns:
                parts.append(f"{_span(frame['fps'].astype(float).round(2).tolist())} a second")
        users = int(frame.loc[frame["user"] != "", "user"].nunique())
        lines.append(f"{name}: {', '.join(parts)}, {users:,} users")
    return lines


def _some(images: Any, most: int) -> Iterator[Any]:
    """The first pictures, so that a large pack is not read in full."""
    for _, name in zip(range(most), images, strict=False):
        yield images[name]


def _span(numbers: Sequence[float]) -> str:
    least, largest = min(numbers), max(numbers)
    return f"{least:g}" if least == largest else f"{least:g} to {largest:g}"


def shown(pack: Pack, config: Config) -> Iterator[str | Fitted]:
    """What to print of a pack: its size, its samples by domain and kind, the axes of drift, what to mind."""
    yield from summary(pack)
    yield _kinds(pack, config)
    for axis in look.axes(pack, config):
        yield _heading(axis)
        if axis.said and len(axis.values):
            yield _values(axis)
    yield from (f"note: {line}" for line in look.warnings(pack, config))


def _groups(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The rows of each domain and kind of question: the source first, frequent kinds before rare ones."""
    for domain in DOMAINS:
        rows = frame[frame["drift"] == domain]
        for qtype in rows["qtype"].value_counts().index:
            yield domain, str(qtype), rows[rows["qtype"] == qtype]


def _kinds(pack: Pack, config: Config) -> Fitted:
    cells = []
    for name, frame in (("train", pack.train), ("test", pack.test)):
        for domain, qtype, rows in _groups(frame.assign(drift=domains(frame, config.data, pack.train))):
            counts = len(rows), rows["image_id"].nunique(), rows["answer"].nunique()
            example = f"{rows['question'].iloc[0]} {rows['answer'].iloc[0]}"
            of = share(len(rows) / len(frame))
            cells.append(
                (name, domain, qtype, f"{counts[0]:,}", of, f"{counts[1]:,}", f"{counts[2]:,}", example)
            )
    things = "clips" if pack.clips else "pictures"
    heads = ("split", "domain", "qtype", "samples", "%", things, "answers", "e.g.")
    return Fitted(heads, cells, ("answers", things), wraps=("qtype", "e.g."), left=("domain",))


def _heading(axis: look.Axis) -> str:
    where = f"axis {axis.name} ({axis.setting}, column {axis.column})"
    if axis.values.empty:
        return f"{where}: no such column"
    if not axis.values["value"].any():
        return f"{where}: the column is empty, so nothing can drift by it"
    if not axis.said:
        some = ", ".join(value or "(empty)" for value in axis.values["value"].head(8))
        more = f", ... ({len(axis.values)} in all)" if len(axis.values) > 8 else ""
        return f"{where}: not set, all {len(axis.values)} values are known: {some}{more}"
    known = int(axis.values["known"].sum())
    return f"{where} = {axis.said}: {known} values known, {len(axis.values) - known} new"


def _values(axis: look.Axis) -> Fitted:
    cells: list[tuple[str, ...]] = []
    totals = axis.values["train"].sum(), axis.values["test"].sum()

    def row(value: str, state: str, train: int, test: int) -> None:
        shares = [share(n / total) if total else "-" for n, total in zip((train, test), totals, strict=True)]
        cells.append((value, state, f"{train:,}", shares[0], f"{test:,}", shares[1]))

    for known, rows in axis.values.groupby("known", sort=False):
        state = "known" if known else "new"
        for one in rows.head(SHOWN).itertuples():
            row(str(one.value) or "(empty)", state, int(one.train), int(one.test))
        if len(rest := rows.iloc[SHOWN:]):
            row(f"... {len(rest)} more", state, int(rest["train"].sum()), int(rest["test"].sum()))
    heads = ("value", "", "train", "train %", "test", "test %")
    return Fitted(heads, cells, wraps=("value",), left=("",))


# --- the contact sheet --------------------------------------------------------------------------------------


def write_sheet(pack: Pack, config: Config, path: Path) -> None:
    """Write the contact sheet: samples of every domain and kind, the same ones for the same pack."""
    from experiments.report.page import template  # with what draws, which tables on the terminal need not

    groups = []
    frame = pack.train.assign(drift=domains(pack.train, config.data))
    left = MOST
    for domain, qtype, rows in _groups(frame):
        distinct = rows.drop_duplicates("image_id")  # of first and last, and between: of several users
        chosen = distinct.iloc[spread(len(distinct), EACH)].head(left)
        left -= len(chosen)
        if len(chosen):
            samples = [_sample(row, pack.train_images) for row in chosen.to_dict("records")]
            share_of = share(len(rows) / len(frame))
            groups.append(
                {"domain": domain, "qtype": qtype, "rows": len(rows), "share": share_of, "samples": samples}
            )
    axes = [
        {"heading": _heading(axis), "values": _rows(axis.values) if axis.said else []}
        for axis in look.axes(pack, config)
    ]
    text = template("pack").render(
        name=pack.name,
        summary=summary(pack),
        axes=axes,
        notes=look.warnings(pack, config),
        groups=groups,
        clips=pack.clips,
    )
    path.write_text(text, encoding="utf-8")


def _rows(values: pd.DataFrame) -> list[tuple[str, ...]]:
    return [
        (str(one.value), "known" if one.known else "new", f"{one.train:,}", f"{one.test:,}")
        for one in values.itertuples()
    ]


def _sample(row: dict[str, Any], images: Any) -> dict[str, Any]:
    found = images[row["image_id"]]
    if isinstance(found, bytes):
        pictures = [_small(found, SIDE)]
    else:
        step = max(1, -(-len(found) // FRAMES))
        pictures = [_small(data, SIDE_OF_FRAME) for data in found[::step]]
    keys = ("image_id", "question", "answer", "user")
    return {**{key: str(row[key]) for key in keys}, "pictures": pictures}


def _small(data: bytes, side: int) -> str:
    """A picture as a data URL of few pixels."""
    small = open_picture(data)
    small.thumbnail((side, side))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=80)
    return url(stream.getvalue())
