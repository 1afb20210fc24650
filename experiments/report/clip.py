"""A clip that a device sent something of, for the report: its frames, which are anchors, and errors."""

from __future__ import annotations

import base64
from typing import Any

MAGIC = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp", b"GIF8": "gif"}
SIDE, GAP, BELOW, ROW = 60, 6, 18, 4  # of a frame, between frames, for a line of text; frames in a row


def url(image: bytes) -> str:
    """An encoded picture as a data URL."""
    kind = next((name for magic, name in MAGIC.items() if image.startswith(magic)), "png")
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def clip(row: dict[str, Any]) -> dict[str, Any]:
    """A sample for the template.

    Args:
        row: of pictures.parquet; `image` are the F frames, `positions` kept tokens of all of them, `errors`
            those of each frame, or none.

    Returns:
        the row with `frames` (url, place, whether it is an anchor, whether any token of it was sent, its
        error in words), `kept` (positions), `width`, `height` and `says`, the clip in words.
    """
    images, errors = list(row["image"]), list(row["errors"])
    n, kept = int(row["n_tokens"]) // len(images), [int(p) for p in row["positions"]]
    counts = [sum(p // n == i for p in kept) for i in range(len(images))]
    frames = [
        {
            "url": url(bytes(image)),
            "x": i % ROW * (SIDE + GAP) + 2,
            "y": i // ROW * (SIDE + BELOW) + 2,
            "anchor": counts[i] == n,
            "kept": counts[i] > 0,
            "error": f"{100 * errors[i]:.0f} %" if errors else "",
        }
        for i, image in enumerate(images)
    ]
    anchors = [str(i + 1) for i, frame in enumerate(frames) if frame["anchor"]]
    says = [row["question"], f"anchor frames {', '.join(anchors) or 'none'} of {len(images)}"]
    if errors:
        told = ", ".join(frame["error"] for frame in frames)
        says.append(f"reconstruction errors of the frames {told}")
    lines = -(-len(images) // ROW)
    return {
        **row,
        "frames": frames,
        "kept": kept,
        "total": int(row["n_tokens"]),
        "side": SIDE,
        "width": min(ROW, len(images)) * (SIDE + GAP) - GAP + 4,
        "height": lines * (SIDE + BELOW) + 4,
        "says": "; ".join(says),
    }
