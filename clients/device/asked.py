"""What somebody asks the agent's endpoint: a question and a picture or a clip, as JSON or as a form.

It comes from any program of the machine: sizes are bounded, fields typed, and what else there is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any

from clients.device.feed import MOST_FRAMES, Encoded

MOST_BYTES = 2**24  # of an encoded picture, or of all frames of a clip
MOST_BODY = MOST_BYTES * 4 // 3 + 2**17  # it in base64, and the words
MOST_PARTS = 8  # beside frames
JSON, FORM = "application/json", "multipart/form-data"
HOW = (
    'allowed: {"question": words, "image": base64, "keep": true} as application/json, or multipart/form-data '
    "with the fields question and image (a file), and keep; of a clip, in image's place, frames: a list, or "
    "a file of each"
)
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


class BadRequest(ValueError):
    """A request that cannot be used; the message says why, in one line."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A question about a picture or a clip.

    Attributes:
        question: its words.
        picture: or frames.
        keep: it may become a sample.
    """

    question: str
    picture: Encoded
    keep: bool = True


def read(content_type: str, body: bytes) -> Asked:
    """What a request asks.

    Raises:
        BadRequest: see there.
    """
    header = Message()
    header["content-type"] = content_type
    kind = header.get_content_type() if content_type else ""
    if kind not in (JSON, FORM):
        raise BadRequest(f"content type {content_type[:60]!a}; {HOW}")
    fields = _json(body) if kind == JSON else _form(body, header.get_param("boundary"))
    if odd := fields.keys() - {"question", "image", "frames", "keep"}:
        raise BadRequest(f"field {min(map(str, odd))[:40]!a}; {HOW}")
    question, keep = fields.get("question"), fields.get("keep", True)
    if not isinstance(question, str) or not question.strip():
        raise BadRequest(f"field 'question' is no text; {HOW}")
    if not isinstance(keep, bool):
        raise BadRequest("field 'keep' is no truth value; allowed: true, false")
    return Asked(" ".join(question.split()), _picture(fields), keep)


def _picture(fields: Mapping[str, Any]) -> Encoded:
    """The picture of a request, or the frames of its clip."""
    if "image" in fields and "frames" in fields:
        raise BadRequest(f"fields 'image' and 'frames'; {HOW}")
    clip = "frames" in fields
    name, found = ("frames", fields["frames"]) if clip else ("image", [fields.get("image")])
    if not isinstance(found, list) or not 1 <= len(found) <= MOST_FRAMES:
        raise BadRequest(f"field 'frames' is no list of 1 to {MOST_FRAMES} pictures; {HOW}")
    pictures = tuple(one for one in found if isinstance(one, bytes) and one)
    if len(pictures) < len(found):
        raise BadRequest(f"field '{name}' is no picture; {HOW}")
    if (size := sum(map(len, pictures))) > MOST_BYTES:
        raise BadRequest(f"field '{name}': {size} bytes; allowed: {MOST_BYTES}")
    return pictures if clip else pictures[0]


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as err:
        raise BadRequest(f"no JSON: {err}") from None
    if not isinstance(found, dict):
        raise BadRequest(f"no JSON object; {HOW}")
    if "image" in found:
        found["image"] = _decoded("image", found["image"])
    if isinstance(found.get("frames"), list):
        found["frames"] = [_decoded("frames", one) for one in found["frames"]]
    try:
        str(found.get("question", "")).encode()
    except UnicodeEncodeError:
        raise BadRequest("field 'question' is no text in Unicode") from None
    return found


def _decoded(name: str, coded: Any) -> Any:
    """The bytes of a text in base64; what is no text stays as it is."""
    try:
        return base64.b64decode(coded, validate=True) if isinstance(coded, str) else coded
    except (binascii.Error, ValueError):
        raise BadRequest(f"field '{name}' is no base64") from None


def _form(body: bytes, boundary: Any) -> dict[str, Any]:
    """The fields of a form (RFC 7578): a picture stays bytes, the others are texts in UTF-8."""
    if not isinstance(boundary, str) or not boundary.isascii() or not 1 <= len(boundary) <= 70:
        raise BadRequest("a form without a boundary of 1 to 70 characters")
    line = b"\r\n--" + boundary.encode()
    most = MOST_PARTS + MOST_FRAMES
    parts = (b"\r\n" + body).split(line, most + 2)
    if len(parts) < 3 or len(parts) > most + 2 or not parts[-1].startswith(b"--"):
        raise BadRequest(f"a form that does not end, or of more than {most} fields")
    fields: dict[str, Any] = {}
    for part in parts[1:-1]:
        head, gap, content = part.partition(b"\r\n\r\n")
        header = Message()
        for row in head.decode("latin-1").split("\r\n"):
            name, _, value = row.partition(":")
            if name.strip().lower() == "content-disposition":
                header["content-disposition"] = value.strip()
        name = header.get_param("name", header="content-disposition")
        if not gap or not isinstance(name, str) or (name in fields and name != "frames"):
            raise BadRequest("a field of a form without a name, or twice")
        if name == "frames":
            fields.setdefault(name, []).append(content)
        else:
            fields[name] = content if name == "image" else _text(name, content)
    keep = fields.get("keep", "true")
    return {**fields, "keep": _TRUTH.get(keep.strip().lower())}


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"field {name[:40]!a} is no text in UTF-8") from None
