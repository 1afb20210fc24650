"""What the page compares: parts, data, arms and seeds of `experiments/page.toml`, taken apart into cells.

A cell is one run: data, pair, arm, seed. A part is a table or a figure; parts share the cells they have in
common. An arm is a name and its settings; the methods that are installed are arms by their own names. A
variant is settings that all arms of a part get, and a name behind theirs: "cdc, 1 kB".

    edition = 1                        # raised by hand where all cells must be made again
    [settings]                         # of all cells
    data.items-per-domain = 0
    data = ["scenes", "emoji"]         # names of presets, and of packs below CDC_FLOWER_PACKS
    [arms."random tokens"]
    uplink.token-score = "random"
    [parts.main]
    kind = "main"                      # how it is shown
    data = ["scenes"]
    pairs = ["scenes", "scenes-1"]     # folders in the cache; default: the usual pair
                                       # pairs.emoji = ["emoji-1"]: of some of the data alone
    seeds = 5
    methods = "all"                    # or a list
    without = ["mmpg"]                 # methods that "all" does not mean here
    arms = ["random tokens"]
    once = ["fedavg_lora"]             # arms that are made with the first pair alone
    summary = ["cdc", "random tokens"] # arms of the short table over all data of the part
    [parts.main.settings]              # of all its cells
    [parts.main.variants."1 kB"]
    uplink.budget = 1000
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cdc_flower.config import ConfigError
from experiments.run.arms import with_needs
from experiments.run.settings import flattened
from strategies import method as registry

PAGE = Path(__file__).parents[1] / "page.toml"
TEACHER = "teacher"  # the arm that is no run: what the teacher answers
NAME = r"[A-Za-z0-9][A-Za-z0-9 =+_.%-]*"
PART_KEYS = {
    *("title", "kind", "data", "pairs", "seeds", "arms", "once", "summary"),
    *("methods", "without", "settings", "variants"),
}
KINDS = ("main", "ladder", "crossing", "budget", "table")
MOST_SEEDS = 100


@dataclass(frozen=True)
class Cell:
    """One run of the page: where its figures lie is made of its four names.

    Attributes:
        pair: the name of a pair's folder; "" = the one that is found for the data.
        settings: over the preset of the data, without seed, pack and pair.
    """

    data: str
    pair: str
    arm: str
    seed: int
    settings: Mapping[str, Any] = field(hash=False, compare=False, default_factory=dict)

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.data}{f' ({self.pair})' if self.pair else ''}: {self.arm}, seed {self.seed}"

    @property
    def path(self) -> Path:
        """Of its figures, below the folder of cells."""
        arm = re.sub("[^a-z0-9.+_]+", "-", self.arm.lower())
        return Path(self.pair or self.data) / f"{arm}-{self.seed}.json"


@dataclass(frozen=True)
class Part:
    """A table or a figure.

    Attributes:
        kind: how it is shown, one of `KINDS`.
        pairs: data -> its pairs; ("",) = the usual one.
        once: arms that no teacher teaches, and that are made with the first pair alone.
        summary: arms of the short table.
        arms: name -> settings, in the order of the table, variants included.
        variants: name of an arm -> name of the variant it is of; "" where there are none.
        plain: name of an arm -> its name without the variant.
        base: settings of all cells of the page.
    """

    name: str
    title: str
    kind: str
    data: tuple[str, ...]
    pairs: Mapping[str, tuple[str, ...]]
    seeds: int
    once: frozenset[str]
    summary: tuple[str, ...]
    arms: Mapping[str, Mapping[str, Any]]
    variants: Mapping[str, str]
    plain: Mapping[str, str]
    base: Mapping[str, Any]

    def cells(self, data: str) -> Iterator[Cell]:
        """In the order in which they are worth most: all arms of a seed, then the next seed."""
        for seed in range(self.seeds):
            for pair in self.pairs[data]:
                yield Cell(data, pair, TEACHER, seed, self.base)
                for arm, settings in self.arms.items():
                    if pair == self.pairs[data][0] or self.plain[arm] not in self.once:
                        yield Cell(data, pair, arm, seed, settings)


@dataclass(frozen=True)
class Plan:
    """The page.

    Attributes:
        data: the names of all data.
        skipped: what the file names and this installation lacks -> why.
    """

    edition: int
    data: tuple[str, ...]
    parts: Mapping[str, Part]
    skipped: Mapping[str, str]

    def cells(self, only: Collection[str] = (), seeds: int = MOST_SEEDS) -> list[Cell]:
        """The cells in the order in which they are made, each once.

        Args:
            only: names of parts, data and arms; of each kind that is named a cell must be of one.
            seeds: the first so many seeds.

        Raises:
            ConfigError: a name that is none of these.
        """
        arms = {arm: None for part in self.parts.values() for arm in (*part.arms, *part.plain.values())}
        kinds = [set(self.parts), set(self.data), {*arms, TEACHER}]
        if unknown := sorted(set(only) - set().union(*kinds)):
            allowed = [*self.parts, *self.data, *arms]
            raise ConfigError(f"--only {unknown[0]!r}; allowed: {', '.join(allowed)}")
        of_parts, of_data, of_arms = (kind & set(only) for kind in kinds)
        found: dict[Cell, None] = {}
        for part in self.parts.values():
            for data in part.data:
                for cell in part.cells(data):
                    named = {cell.arm, part.plain.get(cell.arm, cell.arm)}
                    if (
                        cell.seed < seeds
                        and (not of_parts or part.name in of_parts)
                        and (not of_data or data in of_data)
                        and (not of_arms or named & of_arms)
                    ):
                        found.setdefault(cell)
        return list(found)


def read(path: Path | None = None) -> Plan:
    """The page of a file.

    Args:
        path: default `experiments/page.toml`.

    Raises:
        ConfigError: no such file, or one that is not of the form above; names the place.
    """
    methods = registry.methods()
    path = path or PAGE
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise ConfigError(f"page '{path}': {err}; allowed: a TOML file like experiments/page.toml") from None
    where = f"page '{path.name}'"
    _refuse(where, table, {"edition", "data", "settings", "arms", "parts"})
    edition, data = table.get("edition", 1), _names(where, "data", table)
    if type(edition) is not int:
        raise ConfigError(f"{where}: edition = {edition!r}; allowed: a whole number")
    skipped: dict[str, str] = {}
    arms: dict[str, dict[str, Any]] = {name: {"run.method": name} for name in methods}
    for name, settings in _tables(where, "arms", table).items():
        _check_name(where, name)
        if name in (*methods, TEACHER):
            raise ConfigError(f"{where}: arm '{name}' is a method's name; allowed: another")
        try:
            arm = {"run.method": "cdc", **flattened(settings)}
            if arm["run.method"] not in methods:
                raise ConfigError(f"method '{arm['run.method']}' is not installed")
            arms[name] = arm
        except ConfigError as err:
            skipped[name] = str(err)
    arms = with_needs(arms, {})
    base, parts = _settings(where, table.get("settings", {})), {}
    for name, one in _tables(where, "parts", table).items():
        _check_name(where, name)
        parts[name] = _part(f"{where}: part '{name}'", name, one, data, arms, tuple(methods), skipped, base)
    _check_once(where, parts)
    return Plan(edition, tuple(data), parts, skipped)


def _check_once(where: str, parts: Mapping[str, Part]) -> None:
    """One name, one cell: its figures lie under it."""
    seen: dict[Path, tuple[str, Cell]] = {}
    for part in parts.values():
        for cell in (cell for data in part.data for cell in part.cells(data)):
            other, first = seen.setdefault(cell.path, (part.name, cell))
            if first != cell or first.settings != cell.settings:
                raise ConfigError(
                    f"{where}: '{cell.arm}' of '{cell.pair or cell.data}' is two things in the parts "
                    f"'{other}' and '{part.name}'; allowed: another name, or a variant"
                )


def _part(
    where: str,
    name: str,
    one: Mapping[str, Any],
    data: Collection[str],
    known: Mapping[str, Mapping[str, Any]],
    methods: tuple[str, ...],
    skipped: dict[str, str],
    base: Mapping[str, Any],
) -> Part:
    _refuse(where, one, PART_KEYS)
    without, once = _names(where, "without", one), _names(where, "once", one)
    of = tuple(_names(where, "data", one))
    every = one.get("methods") == "all"
    if wrong := [m for m in without if not every or m not in methods]:
        raise ConfigError(f"{where}: without '{wrong[0]}'; allowed: methods, where methods = \"all\"")
    wanted = [m for m in methods if m not in without] if every else _names(where, "methods", one)
    own = [*wanted, *_names(where, "arms", one), *once]
    kind = one.get("kind", "table")
    if kind not in KINDS:
        raise ConfigError(f"{where}: kind = {kind!r}; allowed: {', '.join(KINDS)}")
    for arm in own:
        if arm not in known:
            skipped.setdefault(arm, "no method of this name is installed, and no arm is called so")
    if wrong := [d for d in of if d not in data]:
        raise ConfigError(f"{where}: data '{wrong[0]}'; allowed: {', '.join(sorted(data))}")
    seeds = one.get("seeds", 1)
    if type(seeds) is not int or not 1 <= seeds <= MOST_SEEDS:
        raise ConfigError(f"{where}: seeds = {seeds!r}; allowed: 1 to {MOST_SEEDS}")
    shared = {**base, **_settings(where, one.get("settings", {}))}
    arms: dict[str, dict[str, Any]] = {}
    variants, plain = {}, {}
    for variant, more in (_tables(where, "variants", one) or {"": {}}).items():
        if variant:
            _check_name(where, variant)
        changes = _settings(where, more)
        for arm in own:
            if arm in known:
                full = f"{arm}, {variant}" if variant else arm
                arms[full] = {**shared, **known[arm], **changes}
                variants[full], plain[full] = variant, arm
    pairs = _pairs(where, one, of)
    title, summary = str(one.get("title", name)), tuple(_names(where, "summary", one))
    if wrong := [arm for arm in summary if arm not in own]:
        raise ConfigError(f"{where}: summary '{wrong[0]}'; allowed: {', '.join(own)}")
    return Part(name, title, kind, of, pairs, seeds, frozenset(once), summary, arms, variants, plain, base)


def _pairs(where: str, one: Mapping[str, Any], of: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """A part's pairs by its data: a list is for all of them, a table has a list for some."""
    given = one.get("pairs", [])
    if not isinstance(given, dict):
        given = dict.fromkeys(of, given)
    if wrong := [data for data in given if data not in of]:
        raise ConfigError(f"{where}: pairs of '{wrong[0]}'; allowed: {', '.join(of)}")
    named = {data: _names(where, "pairs", {"pairs": given.get(data, [])}) for data in of}
    return {data: tuple("" if pair == data else pair for pair in named[data]) or ("",) for data in of}


def _settings(where: str, table: Any) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: settings {table!r}; allowed: a table of settings")
    try:
        found = flattened(table)
    except ConfigError as err:
        raise ConfigError(f"{where}: {err}") from None
    for key in ("data.pack", "pair.folder", "run.seed", "run.out-dir", "run.method"):
        if key in found:
            raise ConfigError(f"{where}: sets '{key}'; allowed: any other setting, the page says that itself")
    return found


def _tables(where: str, key: str, table: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found = table.get(key, {})
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise ConfigError(f"{where}: '{key}'; allowed: a table of tables")
    return found


def _names(where: str, key: str, table: Mapping[str, Any]) -> list[str]:
    found = table.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ConfigError(f"{where}: {key} = {found!r}; allowed: a list of names")
    for one in found:
        _check_name(where, one)
    return found


def _check_name(where: str, name: str) -> None:
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"{where}: name {name!r}; allowed: letters, digits and any of ' =+-_.%'")


def _refuse(where: str, table: Mapping[str, Any], allowed: Collection[str]) -> None:
    if unknown := [key for key in table if key not in allowed]:
        raise ConfigError(f"{where}: '{unknown[0]}'; allowed: {', '.join(sorted(allowed))}")
