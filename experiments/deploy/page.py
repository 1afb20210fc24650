"""The cloud's page: who is connected, which version they have, what came and went, how right they are.

It reads two files of the cloud's folder (`view`) anew for each request and changes nothing. Plain HTML
without scripts; a browser asks again every `EVERY` seconds, or stays still at `/?still=1`. `cdc-flower cloud
up` starts it (`shown` around its own work), `cdc-flower cloud page CLOUD` alone (`serve`).

There is no password: it listens on 127.0.0.1, and from elsewhere it is seen through SSH
(`ssh -L 9480:127.0.0.1:9480 cloud`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from cdc_flower import loopback
from experiments.deploy.drawing import Drawing, drawing
from experiments.deploy.view import View, read
from experiments.report import amounts

EVERY = 10  # s between two requests of a browser
PORT = 9480
TEMPLATES = Path(__file__).parent / "templates"
UNKNOWN = "–"
GAP = "\u00a0"  # a space at which no line ends


def application(folder: Path, host: str = loopback.HOST) -> Starlette:
    """The page of the cloud in `folder`: `/`, `/style.css`, and `/status.json` for programs."""
    pages = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"share": share, "bytes": size, "count": count, "ago": ago, "moment": moment}
    template = pages.get_template("cloud.html.j2")
    style = (TEMPLATES / "cloud.css").read_text(encoding="utf-8")

    def page(request: Request) -> Response:
        now = time.time()
        view = read(folder, now)
        still = "still" in request.query_params
        shown = template.render(view=view, charts=charts(view), now=now, every=0 if still else EVERY)
        return HTMLResponse(shown)

    def status(request: Request) -> Response:
        return JSONResponse(dataclasses.asdict(read(folder, time.time())))

    def look(request: Request) -> Response:
        return Response(style, media_type="text/css")

    return loopback.application(
        [Route("/", page), Route("/style.css", look), Route("/status.json", status)], host
    )


def serve(folder: Path, port: int = PORT, host: str = loopback.HOST) -> None:
    """Serve the page; returns when the process is told to end.

    Raises:
        ConfigError: the port is taken.
    """
    loopback.run(application(folder, host), loopback.listening(port, host))


@contextmanager
def shown(folder: Path, port: int = PORT, host: str = loopback.HOST) -> Iterator[int]:
    """Serve the page from a thread for the length of a `with` block; gives the port.

    Raises:
        ConfigError: the port is taken.
    """
    with loopback.served(application(folder, host), loopback.listening(port, host)) as on:
        yield on


def charts(view: View) -> dict[str, Drawing | None]:
    """What is drawn over rounds."""
    known = [(float(v.round), v) for v in view.versions if v.round is not None]
    numbers = [v.version for _, v in known]
    return {
        "agreement": drawing([("agreement", [(at, v.agreement) for at, v in known])], 0.0, 1.0, "%"),
        "versions": drawing(
            [("version", [(at, float(v.version)) for at, v in known])],
            min(numbers, default=0),
            max(numbers, default=1),
            "",
        ),
    }


def share(value: float | None) -> str:
    """0.8125 -> 81 %."""
    return UNKNOWN if value is None else f"{100 * value:.0f}{GAP}%"


def count(value: int | None) -> str:
    """12345 -> 12,345."""
    return UNKNOWN if value is None else f"{value:,}"


def size(value: int | None) -> str:
    """Bytes with a unit: 1048576 -> 1.05 MB."""
    return UNKNOWN if value is None else amounts.size(value, GAP)


def ago(then: float | None, now: float) -> str:
    """How long before now, in the largest unit that fits."""
    if then is None:
        return UNKNOWN
    past = max(0.0, now - then)
    for unit, of in (("d", 86_400), ("h", 3600), ("min", 60)):
        if past >= of:
            return f"{past / of:.0f}{GAP}{unit} ago"
    return f"{past:.0f}{GAP}s ago"


def moment(then: float) -> str:
    """Seconds since 1970 as ISO 8601, in UTC."""
    return datetime.fromtimestamp(then, UTC).isoformat(timespec="seconds")
