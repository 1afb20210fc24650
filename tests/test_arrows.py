"""Claims about who imports whom: arrows run one way, and only the edges of the library know Flower."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("cdc_flower", "strategies", "clients", "experiments")
KNOW_FLOWER = ("cdc_flower.fleet.engines", "cdc_flower.fleet.time.timed_grid", "cdc_flower.wire.messages")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
}


def _imports(nodes: list[ast.stmt] | ast.AST) -> set[str]:
    """Every name that is imported, with the module it comes from before it."""
    found: set[str] = set()
    for node in nodes if isinstance(nodes, list) else ast.walk(nodes):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


IMPORTS = {name: _imports(ast.parse(path.read_text())) for name, path in MODULES.items()}
AT_ONCE = {name: _imports(ast.parse(path.read_text()).body) for name, path in MODULES.items()}


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _arrows(source: str, *targets: str) -> list[str]:
    """What in `source` imports something of the targets."""
    return sorted(
        f"{name} -> {found}"
        for name, imported in IMPORTS.items()
        if _within(name, source)
        for found in imported
        if any(_within(found, target) for target in targets)
    )


@pytest.mark.parametrize(
    ("source", "targets"),
    [
        ("cdc_flower", ("strategies", "clients", "experiments")),
        ("strategies", ("clients", "experiments")),
        ("clients", ("strategies", "experiments")),
        ("cdc_flower.uplink", ("cdc_flower.cloud", "cdc_flower.downlink")),
        ("cdc_flower.cloud", ("cdc_flower.uplink", "cdc_flower.downlink")),
        ("cdc_flower.downlink", ("cdc_flower.uplink", "cdc_flower.cloud")),
    ],
)
def test_arrows_run_one_way(source, targets):
    assert _arrows(source, *targets) == []


def test_only_the_edges_of_the_library_import_flower():
    assert [
        arrow
        for arrow in _arrows("cdc_flower", "flwr")
        if not any(_within(arrow.split(" -> ")[0], edge) for edge in KNOW_FLOWER)
    ] == []


def test_no_import_goes_round_in_a_circle():
    edges = {
        name: {found for found in imported if found in MODULES and found != name}
        for name, imported in AT_ONCE.items()
    }
    while leaves := {name for name, onto in edges.items() if not onto & edges.keys()}:
        edges = {name: onto for name, onto in edges.items() if name not in leaves}
    assert sorted(edges) == []
