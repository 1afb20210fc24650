"""What a cell's figures depend on, beside its settings: its method's source, its pair, its data.

Of the source only what makes the method is taken, or every commit would throw all cells away: the files of
the strategy's classes, the files of the device work they name, and whatever these import, directly or through
one another, of `strategies`, `clients`, `cdc_flower.cloud`, `uplink`, `downlink` and `BESIDE`, without
`MACHINERY`, which all methods share. Docstrings, comments and empty lines do not count. What else decides
figures (machinery, models, data, schedule, versions of packages) is held by tests and by the digests of pair
and data; a change there that alters figures raises `edition` in `experiments/page.toml`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import json
import re
import tokenize
from functools import lru_cache
from pathlib import Path

from cdc_flower.config import Config
from cdc_flower.results import provenance
from strategies.method import Method, method

PLACES = ("strategies", "clients", "cdc_flower.cloud", "cdc_flower.uplink", "cdc_flower.downlink")
BESIDE = ("cdc_flower.models.adapters", "cdc_flower.models.several", "cdc_flower.wire.gate")
MACHINERY = (
    *("strategies.accuracy", "strategies.answers", "strategies.callbacks", "strategies.checks"),
    *("strategies.devices", "strategies.fleet", "strategies.method", "strategies.pictures"),
    *("strategies.resumed", "strategies.run", "strategies.server_app", "strategies.transforms"),
    *("clients.bundle", "clients.client_app", "clients.counts", "clients.evaluate"),
    *("clients.inference", "clients.poison", "clients.store", "clients.task"),
)


@lru_cache(maxsize=64)
def of_method(name: str) -> str:
    """sha256 hex of a method's source."""
    digest = hashlib.sha256()
    for module in modules(name):
        digest.update(f"{module}\n{_text(module)}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=64)
def modules(name: str) -> tuple[str, ...]:
    """The modules that make a method, sorted."""
    cls = method(name)
    todo = [base.__module__ for base in cls.__mro__ if issubclass(base, Method) and base is not Method]
    found: set[str] = set()
    while todo:
        module = todo.pop()
        if module not in found:
            found.add(module)
            todo += _imports(module)
    return tuple(sorted(found))


def of_pair_and_data(config: Config) -> dict[str, str]:
    """The digests of a run's pair and data; the models are not loaded, but for the picture encoder.

    Raises:
        ConfigError: they are not there, or cannot be used.
    """
    from cdc_flower.data import packs
    from cdc_flower.models import placement
    from cdc_flower.models.shared import load_shared
    from cdc_flower.models.teacher import pair_digest

    placement.choose(config.run.device)
    pack = packs.load(config.data, seed=1)
    shared = load_shared(config.pair, config.data.name, config.data.frames)
    return {"pair": pair_digest(config.pair, shared, config.data.name), "data": pack.digest}


@lru_cache(maxsize=1)
def of_program() -> str:
    """sha256 hex of all source and of the packages' versions: a cell that was begun goes on with no other."""
    root = Path(__file__).parents[2]
    files = sorted(
        file
        for of in ("cdc_flower", "strategies", "clients", "experiments")
        for file in (root / of).rglob("*.py")
    )
    digest = hashlib.sha256(json.dumps(provenance(), sort_keys=True).encode())
    for file in files:
        digest.update(f"{file.relative_to(root)}\n{plain(file.read_text(encoding='utf-8'))}\n".encode())
    return digest.hexdigest()


def _file(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def _imports(module: str) -> list[str]:
    """Modules of `PLACES` that a module imports anywhere in it, and those of device work that it names, as
    "module:function".
    """
    file = _file(module)
    names: set[str] = set()
    works: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if file else ():
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            works |= {found[1] for found in [re.fullmatch(r"([A-Za-z_][\w.]*):\w+", node.value)] if found}
    inside = {
        name for name in names if name.startswith(tuple(f"{place}." for place in PLACES)) or name in BESIDE
    }
    inside = (inside | works) - set(MACHINERY)
    return sorted(name for name in inside if _file(name) is not None)


@lru_cache(maxsize=256)
def _text(module: str) -> str:
    file = _file(module)
    return plain(file.read_text(encoding="utf-8")) if file else ""


def plain(source: str) -> str:
    """Python source without docstrings, comments and empty lines."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, start = token.start
            lines[row - 1] = lines[row - 1][:start]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
                for row in range(first.lineno - 1, first.end_lineno or first.lineno):
                    lines[row] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())
