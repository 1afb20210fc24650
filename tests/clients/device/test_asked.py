"""Claims about requests: both forms say the same, a picture's bytes stay as they are, others are refused."""

from __future__ import annotations

import base64
import json

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.device import asked
from clients.device.asked import BadRequest, read

PICTURE = b"\xff\xd8\r\n--\r\n\r\n\x00picture\r\n"


def _form(**fields):
    files = {"image": ("x.jpg", fields.pop("image"), "image/jpeg")} if "image" in fields else {"k": b""}
    request = httpx.Request("POST", "http://x", data=fields, files=files)
    return request.headers["content-type"], request.read()


def _json(**fields):
    if isinstance(fields.get("image"), bytes):
        fields["image"] = base64.b64encode(fields["image"]).decode()
    return asked.JSON, json.dumps(fields).encode()


@settings(max_examples=12)
@given(st.binary(min_size=1, max_size=300), st.text(min_size=1, max_size=30))
def test_a_form_and_json_say_the_same(picture, question):
    try:
        first = read(*_json(question=question, image=picture))
    except BadRequest:
        assert not question.strip()
        return
    second = read(*_form(question=question, image=picture))
    assert first.question == second.question == " ".join(question.split())
    assert first.picture == second.picture == picture
    assert first.keep
    assert second.keep


@settings(max_examples=12)
@given(st.lists(st.binary(min_size=1, max_size=99), min_size=1, max_size=20))
def test_frames_keep_their_order_in_a_form_and_in_json(frames):
    coded = [base64.b64encode(one).decode() for one in frames]
    first = read(asked.JSON, json.dumps({"question": "q", "frames": coded}).encode())
    parts = [("frames", ("x.jpg", one, "image/jpeg")) for one in frames]
    request = httpx.Request("POST", "http://x", data={"question": "q"}, files=parts)
    second = read(request.headers["content-type"], request.read())
    assert first.picture == second.picture == tuple(frames)


def test_keep():
    assert not read(*_json(question="q", image=PICTURE, keep=False)).keep
    assert not read(*_form(question="q", image=PICTURE, keep="false")).keep
    for made in (_json(question="q", image=PICTURE, keep=0), _form(question="q", image=PICTURE, keep="x")):
        with pytest.raises(BadRequest, match="keep"):
            read(*made)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("", b""),
        ("text/plain", b"{}"),
        (asked.JSON, b""),
        (asked.JSON, b"[" * 10**5),
        (asked.JSON, b"[]"),
        (asked.JSON, b'{"question": "q"}'),
        (asked.JSON, b'{"question": "q", "image": "!"}'),
        (asked.JSON, b'{"question": "q", "image": 3}'),
        (asked.JSON, b'{"question": "q", "frames": []}'),
        (asked.JSON, b'{"question": "q", "frames": "AAAA"}'),
        (asked.JSON, b'{"question": "q", "frames": ["AAAA", ""]}'),
        (asked.JSON, b'{"question": "q", "frames": ["AAAA", "!"]}'),
        (asked.JSON, b'{"question": "q", "frames": ["AAAA", ["AAAA"]]}'),
        (asked.JSON, b'{"question": "q", "frames": ["AAAA"], "image": "AAAA"}'),
        (asked.JSON, b'{"question": "q", "frames": [%s"AAAA"]}' % (b'"AAAA", ' * 256)),
        (asked.JSON, b'{"question": "q", "frames": %s%s}' % (b"[" * 900, b"]" * 900)),
        (asked.JSON, b'{"question": "\\ud800", "image": "AAAA"}'),
        (asked.JSON, b'{"question": "q", "image": "AAAA", "other": 1}'),
        (asked.FORM, b""),
        (f"{asked.FORM}; boundary=", b""),
        (f"{asked.FORM}; boundary=x", b"--x\r\n"),
        (f"{asked.FORM}; boundary=x", b"--x\r\n\r\nno name\r\n--x--\r\n"),
        (f"{asked.FORM}; boundary=x", b"--x\r\n\r\n" * 300 + b"--x--"),
        _form(question=b"\xff", image=PICTURE),
        _form(question="q"),
    ],
    ids=map(str, range(25)),  # a form's boundary is drawn
)
def test_others_are_refused_in_one_line(kind, body):
    with pytest.raises(BadRequest) as refused:
        read(kind, body)
    assert 0 < len(str(refused.value)) < 400


@settings(max_examples=40)
@given(st.binary(max_size=80), st.sampled_from([asked.JSON, f"{asked.FORM}; boundary=x", f"{asked.FORM}; a"]))
def test_whatever_comes_it_is_a_question_or_refused(body, kind):
    try:
        read(kind, b"--x" + body)
    except BadRequest:
        return


def test_a_picture_is_bounded(monkeypatch):
    monkeypatch.setattr(asked, "MOST_BYTES", len(PICTURE) - 1)
    with pytest.raises(BadRequest, match="allowed"):
        read(*_json(question="q", image=PICTURE))
    with pytest.raises(BadRequest, match="field 'frames': 24 bytes; allowed: 19"):  # of all together
        read(asked.JSON, json.dumps({"question": "q", "frames": ["A" * 16] * 2}).encode())
