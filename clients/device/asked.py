"""What somebody asks the agent's endpoint: a question and a picture, as JSON or as a form.

It comes from any program of the machine: sizes are bounded, fields typed, and what else there is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from email.message import Message
from typing import Any

MOST_BYTES = 2**24  # of an encoded picture
MOST_BODY = MOST_BYTES * 4 // 3 + 2**17  # it in base64, and the words
MOST_PARTS = 8
JSON, FORM = "application/json", "multipart/form-data"
HOW = (
    'allowed: {"question": words, "image": base64, "keep": true} as application/json, or multipart/form-data '
    "with the fields question and image (a file), and keep"
)
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


class BadRequest(ValueError):
    """A request that cannot be used; the message says why, in one line."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A question about a picture.

    Attributes:
        question: its words.
        picture: encoded.
        keep: it may become a sample.
    """

    question: str
    picture: bytes
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
    if odd := fields.keys() - {"question", "image", "keep"}:
        raise BadRequest(f"field {min(map(str, odd))[:40]!a}; {HOW}")
    question, picture, keep = fields.get("question"), fields.get("image"), fields.get("keep", True)
    if not isinstance(question, str) or not question.strip():
        raise BadRequest(f"field 'question' is no text; {HOW}")
    if not isinstance(picture, bytes) or not picture:
        raise BadRequest(f"field 'image' is no picture; {HOW}")
    if len(picture) > MOST_BYTES:
        raise BadRequest(f"field 'image': {len(picture)} bytes; allowed: {MOST_BYTES}")
    if not isinstance(keep, bool):
        raise BadRequest("field 'keep' is no truth value; allowed: true, false")
    return Asked(" ".join(question.split()), picture, keep)


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as err:
        raise BadRequest(f"no JSON: {err}") from None
    if not isinstance(found, dict):
        raise BadRequest(f"no JSON object; {HOW}")
    coded = found.get("image")
    if isinstance(coded, str):
        try:
            found["image"] = base64.b64decode(coded, validate=True)
        except (binascii.Error, ValueError):
            raise BadRequest("field 'image' is no base64") from None
    try:
        str(found.get("question", "")).encode()
    except UnicodeEncodeError:
        raise BadRequest("field 'question' is no text in Unicode") from None
    return found


def _form(body: bytes, boundary: Any) -> dict[str, Any]:
    """The fields of a form (RFC 7578): a picture stays bytes, the others are texts in UTF-8."""
    if not isinstance(boundary, str) or not boundary.isascii() or not 1 <= len(boundary) <= 70:
        raise BadRequest("a form without a boundary of 1 to 70 characters")
    line = b"\r\n--" + boundary.encode()
    parts = (b"\r\n" + body).split(line, MOST_PARTS + 2)
    if len(parts) < 3 or len(parts) > MOST_PARTS + 2 or not parts[-1].startswith(b"--"):
        raise BadRequest(f"a form that does not end, or of more than {MOST_PARTS} fields")
    fields: dict[str, Any] = {}
    for part in parts[1:-1]:
        head, gap, content = part.partition(b"\r\n\r\n")
        header = Message()
        for row in head.decode("latin-1").split("\r\n"):
            name, _, value = row.partition(":")
            if name.strip().lower() == "content-disposition":
                header["content-disposition"] = value.strip()
        name = header.get_param("name", header="content-disposition")
        if not gap or not isinstance(name, str) or name in fields:
            raise BadRequest("a field of a form without a name, or twice")
        fields[name] = content if name == "image" else _text(name, content)
    keep = fields.get("keep", "true")
    return {**fields, "keep": _TRUTH.get(keep.strip().lower())}


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"field {name[:40]!a} is no text in UTF-8") from None
