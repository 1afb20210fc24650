"""Files that start a deployment with the machine: systemd's units, two Dockerfiles, a compose file.

They are files of this package; units are filled in with where things are on a machine.
"""

from __future__ import annotations

import re
from pathlib import Path

from cdc_flower.config import ConfigError
from cdc_flower.disk import replace, writing

FILES = Path(__file__).parent / "files"
USER = r"[a-z_][a-z0-9_-]{0,31}"
PLACE = r"/[A-Za-z0-9._/+-]*"  # that systemd reads as it stands


def write(out: Path, venv: str, home: str, user: str) -> list[Path]:
    """Write all of them into a folder.

    Args:
        out: made where it is not there.
        venv: in which cdc_flower is installed on that machine.
        home: the folder that a cloud, and bundles, are in.
        user: whose processes they are.

    Returns:
        The files.

    Raises:
        ConfigError: a user or a path that a unit cannot name.
    """
    for name, value, form in (("--venv", venv, PLACE), ("--home", home, PLACE), ("--user", user, USER)):
        if not re.fullmatch(form, value):
            wanted = "a user's name" if form == USER else "an absolute path without spaces"
            raise ConfigError(f"{name} {value!r}; allowed: {wanted}")
    filled = {"@venv@": venv, "@home@": home, "@user@": user}
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    made = []
    for file in sorted(FILES.iterdir()):
        text = file.read_text(encoding="utf-8")
        for mark, value in filled.items():
            text = text.replace(mark, value)
        replace(out / file.name, text.encode())
        made.append(out / file.name)
    return made
