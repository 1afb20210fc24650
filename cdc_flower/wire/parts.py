"""What the bytes of a frame are for: the size of each part, by its name in `docs/wire-format.md`."""

from __future__ import annotations

from cdc_flower.wire.frame import FrameError, Kind, envelope, unpack

_SAMPLES = (
    *("grids", "places", "tokens kept", "question lengths", "answer lengths", "uncertainty"),
    *("positions", "questions", "answers"),
)
PARTS = {
    Kind.TOKEN_BATCH: ("head", *_SAMPLES, "scales", "values", "transform"),
    Kind.PICTURE_BATCH: ("head", *_SAMPLES, "picture lengths", "pictures"),
    Kind.UPDATE: ("head", "changes"),
    Kind.LOW_RANK: ("ranks", "values"),
}
"""Names of the sections of each kind of frame; further ones belong to the last."""
ENVELOPE = "envelope"
_KIND = 5  # where a frame says its kind


def parts(data: bytes) -> dict[str, int]:
    """Bytes of each part of a frame that is there, in the frame's order; they add up to the whole.

    Raises:
        FrameError: no frame, a damaged one, or one of a kind that is not known.
    """
    found = data[_KIND] if len(data) > _KIND else 0
    if found not in Kind.__members__.values():
        raise FrameError(f"not a frame, or of a kind that is not known: {found}")
    sections, names = unpack(data, Kind(found), len(data)), PARTS[Kind(found)]
    sizes = {ENVELOPE: envelope(len(sections))}
    for place, section in enumerate(sections):
        name = names[min(place, len(names) - 1)]
        sizes[name] = sizes.get(name, 0) + len(section)
    return {name: size for name, size in sizes.items() if size}
