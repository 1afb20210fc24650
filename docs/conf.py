"""What `docs/build.py` builds the site with: Sphinx, which is kept well, writes a search without a server,
and reads Markdown (MyST) and docstrings; furo fits a phone and the dark. mkdocs-material ends in May 2027.
"""

from __future__ import annotations

from typing import Any

project = "cdc_flower"
author = "the cdc_flower authors"
html_title = project
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",  # formulas without a network
    "sphinx_copybutton",
]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # links to headings, as where the documents are read as files
suppress_warnings = ["myst.header"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True}
napoleon_use_ivar = True


def as_rst(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are Markdown: blocks of code and bars as reStructuredText has them."""
    out, fenced = list[str](), False
    for line in lines:
        if line.strip().startswith("```"):
            fenced = not fenced
            out += [".. code-block:: python", ""] if fenced else [""]
        elif fenced:
            out.append(f"    {line}")
        else:
            indented = what == "module" and line.startswith("    ")
            if indented and out and not out[-1].strip():
                out += ["::", ""]
            out.append(line if indented else line.replace("|", "\\|"))
    lines[:] = out


def setup(app: Any) -> None:
    """As Sphinx calls it."""
    app.connect("autodoc-process-docstring", as_rst, priority=100)
