"""Traces as tables and files: checked row by row, read and written as parquet or JSON.

FedScale's are pickles, which run code when read; these are data alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from cdc_flower.config import ConfigError
from cdc_flower.fleet.time.traces import DAY, Trace

LONGEST = 1e12  # s, a period
MOST_DEVICES = 10**7
COLUMNS = {"device": "int64", "start": "float64", "end": "float64", "charging": "bool", "idle": "bool"}
"""Columns of a trace's table -> dtype. Rows of a device stand in order of time."""


def frame(trace: Trace) -> pd.DataFrame:
    """The intervals as a table; columns as `COLUMNS`."""
    device = np.repeat(np.arange(len(trace)), np.diff(trace.offsets))
    columns = device, trace.start, trace.end, trace.charging, trace.idle
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True))).astype(COLUMNS)


def from_frame(table: pd.DataFrame, devices: int, period: float, name: str = "trace") -> Trace:
    """Check a table of intervals (`COLUMNS`; rows of a device in order of time; other columns are ignored).

    Args:
        devices: how many the fleet has.
        period: s.
        name: what error messages call the table.

    Raises:
        ConfigError: a column or row that is not allowed; names the row (from 0) and what is allowed.
    """
    _check_extent(devices, period, name)
    _check_columns(table, name)
    columns = {c: table[c].to_numpy(dtype=kind) for c, kind in COLUMNS.items()}
    order = np.argsort(columns["device"], kind="stable")
    _check_rows(columns, order, devices, period, name)
    device, start, end, charging, idle = (columns[c][order] for c in COLUMNS)
    return Trace(float(period), np.searchsorted(device, np.arange(devices + 1)), start, end, charging, idle)


def _check_extent(devices: int, period: float, name: str) -> None:
    if isinstance(period, bool) or not isinstance(period, int | float) or not 1 <= period <= LONGEST:
        raise ConfigError(f"{name}: period = {period!r}; allowed: a number of seconds from 1 to {LONGEST:g}")
    if devices > MOST_DEVICES:
        raise ConfigError(f"{name}: {devices} devices; allowed: up to {MOST_DEVICES}")


def _check_columns(table: pd.DataFrame, name: str) -> None:
    """Refuse a column that is not there, is of another kind or has gaps."""
    for column, kind in COLUMNS.items():
        if column not in table.columns:
            raise ConfigError(f"{name}: no column '{column}'; allowed: {', '.join(COLUMNS)}")
        values = table[column]
        if len(table) and (not _is_of(values, kind) or values.isna().any()):
            row = _first_wrong(values, kind)
            where, what = (name, f"is {values.dtype}") if row is None else (f"{name}, row {row}", "= ")
            value = "" if row is None else repr(values.astype(object).iloc[row])
            raise ConfigError(f"{where}: column '{column}' {what}{value}; allowed: {kind}, no gaps")


def _is_of(values: pd.Series, kind: str) -> bool:
    types, boolean = pd.api.types, pd.api.types.is_bool_dtype(values)
    if kind == "bool":
        return bool(boolean)
    return (
        types.is_integer_dtype(values) if kind == "int64" else types.is_numeric_dtype(values) and not boolean
    )


def _first_wrong(values: pd.Series, kind: str) -> int | None:
    """The first row whose value is not allowed by itself; None where only the column's type is another."""
    wrong = values.isna().to_numpy()
    if not wrong.any():  # a gap makes 1.0 of 1, which is no fault of that row
        wrong = np.array([not _allowed(value, kind) for value in values.astype(object)])
    return int(wrong.argmax()) if wrong.any() else None


def _allowed(value: object, kind: str) -> bool:
    if isinstance(value, bool | np.bool_):
        return kind == "bool"
    if kind == "bool" or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return kind == "float64" or bool(-(2**63) <= value < 2**63 and float(value).is_integer())


def _check_rows(
    columns: Mapping[str, np.ndarray], order: np.ndarray, devices: int, period: float, name: str
) -> None:
    """Refuse the first row that breaks a rule.

    Args:
        order: the rows by device, those of one as they stand in the table.
    """
    device, start, end = columns["device"], columns["start"], columns["end"]
    previous, ended = _before(device, order, start), _before(device, order, end)
    rules = {
        f"device {{device}} is unknown; allowed: 0 to {devices - 1}": (device < 0) | (device >= devices),
        "[{start}, {end}) is not finite; allowed: finite seconds": ~(np.isfinite(start) & np.isfinite(end)),
        "start {start} is negative; allowed: seconds from 0": start < 0,
        "[{start}, {end}) ends before it has begun; allowed: end above start": end <= start,
        f"[{{start}}, {{end}}) is longer than the trace; allowed: end up to {period:g} s": end > period,
        "device {device} goes back in time from {previous} to {start}; allowed: rows of a device in order of "
        "time": start < previous,
        "[{start}, {end}) of device {device} overlaps the one before it, ending at {ended}; allowed: start "
        "from there on": start < ended,
    }
    named = {"device": device, "start": start, "end": end, "previous": previous, "ended": ended}
    for text, broken in rules.items():
        if broken.any():
            row = int(broken.argmax())
            told = text.format(**{what: values[row] for what, values in named.items()})
            raise ConfigError(f"{name}, row {row}: {told}")


def _before(device: np.ndarray, order: np.ndarray, values: np.ndarray) -> np.ndarray:
    """By row: the value of the same device's row before it, 0 for its first."""
    follows = np.flatnonzero(device[order][1:] == device[order][:-1]) + 1  # places in `order`
    found = np.zeros(len(order))
    found[order[follows]] = values[order[follows - 1]]
    return found


def check_ending(path: Path) -> None:
    """Refuse a trace that is neither Parquet nor JSON by its name.

    Raises:
        ConfigError: another ending.
    """
    if path.suffix not in (".parquet", ".json"):
        raise ConfigError(f"trace '{path}'; allowed: a file ending in .parquet or .json")


def check_name(path: Path | str) -> Path:
    """The path of a trace that is there and has an ending that can be read.

    Raises:
        ConfigError: another ending, or no such file.
    """
    path = Path(path)
    check_ending(path)
    if not path.is_file():
        raise ConfigError(f"trace '{path}' does not exist; allowed: a .parquet or .json file")
    return path


def read_trace(path: Path | str, devices: int | None = None) -> Trace:
    """A trace from ".parquet" or ".json", as `write_trace` writes it.

    A parquet file made elsewhere needs the columns alone; its period is then its latest end.

    Args:
        devices: how many the fleet has; None = up to the highest number in the file.

    Raises:
        ConfigError: unreadable, another ending, or not allowed (see `from_frame`).
    """
    path = check_name(path)
    name = f"trace '{path}'"
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
            period = table.attrs.get("period")
        else:
            content = json.loads(path.read_text(encoding="utf-8"))
            table = pd.DataFrame(content["intervals"], columns=list(COLUMNS))
            period = content["period"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as err:
        what = str(err).splitlines()[0] if str(err) else ""
        raise ConfigError(
            f"{name} cannot be read ({type(err).__name__}: {what}); allowed: columns "
            f'{", ".join(COLUMNS)}, and in JSON {{"period": s, "intervals": [[device, '
            "start, end, charging, idle], ...]}"
        ) from None
    if period is None:
        period = _largest(table, "end") or DAY
    if devices is None:
        devices = max(1, int(_largest(table, "device")) + 1)
    return from_frame(table, devices, period, name)


def _largest(table: pd.DataFrame, column: str) -> float:
    """The largest number of a column that is perhaps none; 0 where there is no number."""
    if column not in table.columns or not len(table):
        return 0.0
    numbers = np.asarray(pd.to_numeric(table[column], errors="coerce"), np.float64)
    return float(np.max(numbers, where=np.isfinite(numbers), initial=0.0))


def write_trace(path: Path | str, trace: Trace) -> None:
    """Write ".parquet" or ".json".

    Raises:
        ConfigError: another ending.
    """
    path, table = Path(path), frame(trace)
    check_ending(path)
    if path.suffix == ".parquet":
        table.attrs = {"period": trace.period}
        table.to_parquet(path, index=False)
    else:
        rows = list(zip(*(table[c].tolist() for c in COLUMNS), strict=True))
        path.write_text(
            json.dumps({"period": trace.period, "intervals": rows}, allow_nan=False) + "\n", encoding="utf-8"
        )
