"""Print requirements.lock: exact pins of all that pyproject.toml needs, with the extras that tests need.

The closure is taken from the running environment, so what is pinned is what the tests ran on. Local version
parts (`+cpu`) are left out: they name a build, not a release. Run by `make lock`.
"""

import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Pinned in pyproject.toml; 104 MB of Java programs; trackers that no test of the default tier needs.
LEFT_OUT = ("docs", "captions", "mlflow", "wandb")


def closure(wanted: list[str]) -> dict[str, str]:
    """Name -> version of every distribution reached from the requirements `wanted`."""
    todo = [(Requirement(text), "") for text in wanted]
    seen, pins = set(), {}
    while todo:
        need, extra = todo.pop()
        if need.marker and not need.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(need.name)
        found = metadata.distribution(name)
        if not need.specifier.contains(found.version, prereleases=True):
            sys.exit(f"error: {need} is wanted and {found.version} is installed")
        pins[name] = found.version.split("+")[0]
        for asked in {"", *need.extras}:
            if (name, asked) not in seen:
                seen.add((name, asked))
                todo += [(Requirement(text), asked) for text in found.requires or ()]
    return pins


project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
groups = project["optional-dependencies"]
extras = [need for name, group in groups.items() if name not in LEFT_OUT for need in group]
print("# Exact versions of everything, for Python 3.11 on Linux. Written by `make lock`; do not edit.")  # noqa: T201
for name, version in sorted(closure(project["dependencies"] + extras).items()):
    print(f"{name}=={version}")  # noqa: T201
