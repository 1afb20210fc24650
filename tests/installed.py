"""What pip leaves of a package beside its modules."""

from __future__ import annotations

from pathlib import Path


def announce(site: Path, name: str, entry_points: str) -> None:
    """Metadata of a package in a folder of packages, made where it is not there, as if it were installed.

    Args:
        site: the folder, which is to be on `sys.path`.
        name: of the distribution.
        entry_points: the text of its `entry_points.txt`.
    """
    about = site / f"{name.replace('-', '_')}-0.1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text(entry_points)
