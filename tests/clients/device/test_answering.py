"""What the student reads is checked before a model sees it."""

import io

import numpy as np
import pytest
from PIL import Image

from clients.device import answering
from clients.device.answering import ItemError, opened
from clients.device.feed import Item


def encoded(picture, kind="PNG"):
    data = io.BytesIO()
    picture.save(data, kind)
    return data.getvalue()


def test_a_picture_is_read_and_a_question_answered(student, picture):
    read = student.read(Item("what is this?", picture, "1"))
    assert read.tokens.dtype == np.float16
    assert read.tokens.shape == (read.grid.n, student.shared.width)
    answers = student.answer([read, read], student.resident.initial)
    assert answers.texts[0] == answers.texts[1]
    assert np.isfinite(answers.entropy).all()


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("", "0 characters"),
        ("x" * 20_000, "20000 characters"),
        ("is <image> here?", "which stands for a picture"),
    ],
)
def test_a_question_that_cannot_be_used_is_refused(student, picture, question, says):
    assert student.shared.text.image == "<image>"
    with pytest.raises(ItemError, match=says):
        student.read(Item(question, picture, "1"))


def test_a_question_that_the_cloud_would_refuse_is_refused_here(begin, picture):
    agent = begin(feed="folder", longest_question=8)
    agent.ask("what is this?", picture)
    with pytest.raises(ItemError, match="allowed: 8, the longest of the data"):
        agent.ask("what is this? what is this? what is this?", picture)


@pytest.mark.parametrize(
    "data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(50), b"GIF89a" + b"\xff" * 40]
)
def test_damaged_pictures_are_refused(student, data):
    with pytest.raises(ItemError, match="a picture that cannot be used"):
        student.read(Item("what is this?", data, "1"))


def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(monkeypatch):
    data = encoded(Image.new("RGB", (300, 200)))
    assert opened(data).size == (300, 200)
    monkeypatch.setattr(answering, "MOST_PIXELS", 50_000)
    with pytest.raises(ValueError, match="300 x 200 pixels"):
        opened(data)
    monkeypatch.setattr(answering, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match="allowed: 10"):
        opened(data)


def test_what_is_no_picture_is_said_in_words_of_whoever_asks():
    with pytest.raises(ValueError, match=r"^none of PNG, JPEG"):
        answering.opened(b"no picture")
