"""Build the documents as a site: `make docs`, or `python docs/build.py OUT`.

The start is README.md; settings, methods, messages and the Python interface are made from the code. A link to
a file of the repository that is no document leads to a page with that file.
"""

from __future__ import annotations

import inspect
import json
import posixpath
import re
import shutil
import sys
import tempfile
from pathlib import Path

from cdc_flower import results
from cdc_flower.config import sections
from cdc_flower.wire import keys
from experiments.cli.settings import allowed, of_stage, shown
from strategies.method import methods

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
KINDS = {".py": "python", ".toml": "toml", ".json": "json", ".yml": "yaml"}
NAV = {
    "Start": [
        "concepts",
        "source/experiments/notebooks/first_hour.ipynb",
        "guide",
        "deploy",
        "device",
        "extending",
    ],
    "Reference": [
        "reference/settings",
        "reference/methods",
        "reference/messages",
        "wire-format",
        "reference/files",
        "reference/python",
    ],
    "How it works": ["method", "fleet", "design", "threat-model", "log"],
    "Results": [f"results/{p.stem}" for p in sorted((ROOT / "docs" / "results").glob("*.md"))],
}
PYTHON = {
    "A comparison, a run": (
        *("experiments.run.compare", "experiments.report.summary", "experiments.run.settings"),
        *("strategies.run", "cdc_flower.results", "cdc_flower.models.adapted"),
    ),
    "Settings": ("cdc_flower.config", "cdc_flower.setting", "cdc_flower.plugins"),
    "Methods": (
        *("strategies.method", "strategies.cdc", "strategies.lineage", "strategies.callbacks"),
        *("strategies.fedavg", "strategies.averages"),
    ),
    "Devices": ("clients.task", "clients.cdc", "clients.store", "cdc_flower.data.source"),
    "Uplink": ("cdc_flower.uplink.scores", "cdc_flower.uplink.sample", "cdc_flower.uplink.token_batch"),
    "Cloud": ("cdc_flower.cloud.losses", "cdc_flower.cloud.distill", "cdc_flower.cloud.guard"),
    "Downlink": ("cdc_flower.downlink.codecs", "cdc_flower.downlink.update", "cdc_flower.downlink.versions"),
    "On the wire": ("cdc_flower.wire.frame", "cdc_flower.wire.parts", "cdc_flower.wire.messages"),
    "Models": ("cdc_flower.models.family", "cdc_flower.models.adapters", "cdc_flower.models.shared"),
    "Tasks": ("cdc_flower.tasks.task",),
}
"""What the Python reference has, in this order."""
OTHER_FILES = """
## A comparison

| in its folder | what |
|---|---|
| `runs/ARM-SEED/` | a run folder for each arm and seed |
| `comparison.json` | settings, arms, seeds, versions, the teacher's accuracy, host seconds by stage |
| `summary.json` | [figures for programs](../guide.md#for-programs); its [schema](../summary.schema.json) |
| `report.html` | the report: one file that needs no other |

## A deployment

[The cloud's folder and a device's bundle](../deploy.md#provision), and
[what a device writes](../device.md#files).

## A pack

[`train.parquet` and `test.parquet`](../guide.md#your-own-data), their columns and lists.
"""
CSS = """
article table { display: block; overflow-x: auto; width: fit-content; max-width: 100%; }
article code { overflow-wrap: anywhere; }
article pre code { overflow-wrap: normal; }
article table code { white-space: nowrap; overflow-wrap: normal; }
article .sig { overflow-wrap: anywhere; }
"""


class Site:
    """The folder that Sphinx reads.

    Args:
        folder: empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def page(self, name: str, text: str) -> None:
        """Write a page."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def source(self, path: str) -> str:
        """The page of a file or folder of the repository that is no document."""
        found = ROOT / path
        if found.is_dir():
            names = [p.name for p in sorted(found.iterdir()) if not p.name.startswith((".", "__"))]
            listed = "\n".join(f"- `{name}`" for name in names)
            name, text = f"source/{path}/index.md", f"# {path}\n\n{listed}\n"
        elif found.suffix == ".ipynb":
            name, text = f"source/{path}.md", self.linked(notebook(found), path)
        else:
            kind = KINDS.get(found.suffix, "text")
            name, text = f"source/{path}.md", f"# {path}\n\n````{kind}\n{found.read_text()}\n````\n"
        self.page(name, f"---\norphan: true\n---\n{text}")
        return name

    def linked(self, text: str, at: str) -> str:
        """A document with its links as the site has them.

        Args:
            text: Markdown.
            at: where the document lies in the repository.
        """
        own = posixpath.dirname(at)
        if not at.startswith("docs/"):  # README.md is the start, other files are pages below source/
            own = posixpath.join("docs/source" if own else "docs", own)

        def changed(found: re.Match[str]) -> str:
            target = posixpath.normpath(posixpath.join(posixpath.dirname(at), found[1]))
            if target == "README.md":
                place = posixpath.relpath("docs/index.md", own)
            elif target == "docs/results":
                place = posixpath.relpath("docs/results/main.md", own)
            elif target.startswith("docs/") and (ROOT / target).is_file():
                place = posixpath.relpath(target, own)
            else:
                place = posixpath.relpath("docs/" + self.source(target), own)
            return f"]({place}{found[2] or ''})"

        return LINK.sub(changed, text)

    def contents(self) -> str:
        """The site's tree, for the end of its start."""
        trees = []
        for caption, names in NAV.items():
            trees.append(
                "```{toctree}\n:hidden:\n:caption: " + caption + "\n\n" + "\n".join(names) + "\n```\n"
            )
        return "\n" + "\n".join(trees)


def notebook(path: Path) -> str:
    """A notebook as Markdown, without outputs."""
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(path.read_text())["cells"]]
    return "\n\n".join(f"```python\n{text}\n```" if kind == "code" else text for kind, text in cells) + "\n"


def table_of_settings() -> str:
    """Every setting, as `cdc-flower settings` has it."""
    out = ["# Settings", "", "`cdc-flower settings` prints them. Each is `--set KEY=VALUE`.", ""]
    for section, cls in sections().items():
        out += [f"## {section}", "", (cls.__doc__ or "").splitlines()[0], ""]
        out += ["| key | default | allowed | read by | meaning |", "|---|---|---|---|---|"]
        for row in of_stage(section, cls):
            cells = (allowed(row), row["reader"], row["meaning"] or "")
            rest = " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells)
            out.append(f"| `{row['key']}` | `{shown(row['default'])}` | {rest} |")
        out.append("")
    return "\n".join(out)


def table_of_methods() -> str:
    """Every method, as `cdc-flower methods` has it."""
    yes = {True: "yes", False: "no"}
    head = ["# Methods", "", "| name | what it does | labels | gradients on the device | own parameters |"]
    rows = [
        f"| `{name}` | {found.about} | {yes[found.traits.labels]} | {yes[found.traits.device_backprop]} | "
        f"{yes[found.traits.personal]} |"
        for name, found in methods().items()
    ]
    return "\n".join([*head, "|---|---|---|---|---|", *rows, ""])


def messages() -> str:
    """What messages and replies carry, and the names in them."""
    names = inspect.getsource(keys).split('"""', 2)[2].strip()
    down = f"`{keys.CONFIG}`: `{keys.WORK}`, `{keys.ROUND}`, what that work needs; `{keys.ARRAYS}`: one array"
    up = f"what the method's form says, and `{keys.COUNTS}`, `{keys.SECONDS}` in `{keys.METRICS}`"
    return f"""# Messages and records

{inspect.cleandoc(keys.__doc__ or "")}

| message | down | up |
|---|---|---|
| QUERY | nothing | `{keys.METRICS}`: `{keys.DEVICE}` |
| TRAIN | {down} | {up} |
| EVALUATE | `{keys.CONFIG}`: `{keys.ROUND}` | `{keys.CONFIG}`: `{keys.ANSWERS}` |

The form of a method's TRAIN reply is its `form()`, read by `cdc_flower.wire.reply`; all else is refused. What
TRAIN of `cdc` carries, both ways, stands with an example in
[a ClientApp of your own](../extending.md#a-clientapp-of-your-own); the array is a frame of the
[wire format](../wire-format.md).

## Names

```python
{names}
```
"""


def files() -> str:
    """What a run leaves on disk."""
    about = (results.__doc__ or "").splitlines()
    listed = "\n".join(line[4:] for line in about if line.startswith("    "))
    return f"# Files\n\n## A run\n\n{about[0]}\n\n```text\n{listed}\n```\n{OTHER_FILES}"


def python() -> str:
    """The Python interface, from docstrings."""
    parts = []
    for title, names in PYTHON.items():
        parts.append(f"## {title}\n")
        parts += [f"### {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n" for name in names]
    return "# Python\n\n" + "\n".join(parts)


def build(out: Path) -> int:
    """Write the site into `out`; 0 where all went well and every link leads somewhere, as Sphinx says it."""
    from sphinx.cmd.build import build_main  # pyright: ignore[reportMissingImports]

    with tempfile.TemporaryDirectory() as made:
        site = Site(Path(made))
        docs = ROOT / "docs"
        for path in sorted(docs.rglob("*")):
            name = path.relative_to(docs).as_posix()
            if path.suffix == ".md":
                site.page(name, site.linked(path.read_text(), f"docs/{name}"))
            elif path.suffix in (".png", ".svg", ".json") and not name.startswith("results/cells"):
                (site.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, site.folder / name)
        site.page("index.md", site.linked((ROOT / "README.md").read_text(), "README.md") + site.contents())
        site.page("reference/settings.md", table_of_settings())
        site.page("reference/methods.md", table_of_methods())
        site.page("reference/messages.md", messages())
        site.page("reference/files.md", files())
        site.page("reference/python.md", python())
        site.page("_static/site.css", CSS)
        shutil.copy(docs / "conf.py", site.folder / "conf.py")
        return build_main(["-q", "-W", "--keep-going", "-b", "html", made, str(out)])


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "results" / "site")))
