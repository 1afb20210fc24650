"""What the student reads is checked before a model sees it."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cdc_flower.data.features import ORIENTATION, open_picture, stacked
from cdc_flower.data.instruction import told_by_card
from cdc_flower.data.world import instructed
from clients.device import answering
from clients.device.answering import ItemError, Student, opened
from clients.device.feed import Item
from clients.device.settings import Bundle


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


@pytest.mark.parametrize("instruction", ["auto", "none", "Answer in one word."])
@pytest.mark.parametrize("bare", [True, False])
def test_a_question_has_the_ids_of_the_same_one_in_a_pack(student, picture, instruction, bare):
    card = {} if bare else student.shared.card
    data = replace(student.config.data, instruction=instruction, task="vqa")
    device = replace(
        student, shared=replace(student.shared, card=card), config=replace(student.config, data=data)
    )
    rows = pd.DataFrame({"question": ["what is this?"]})
    (words,) = instructed(rows, told_by_card(data, card))["question"]
    read = device.read(Item("what is this?", picture, "1"))
    assert read.item.question == words
    assert read.ids == student.shared.text.question_ids(words)
    more = instruction == "Answer in one word." or (instruction == "auto" and bare)
    assert (len(read.ids) > len(student.shared.text.question_ids("what is this?"))) == more
    tokens = Item(words, b"", "1", read.tokens, read.grid)  # published: it has the instruction
    assert device.read(tokens).ids == read.ids


def test_the_longest_question_is_counted_with_its_instruction(student, picture):
    bare = replace(student, shared=replace(student.shared, card={}))
    least = len(bare.read(Item("what is this?", picture, "1")).ids)
    replace(bare, longest=least).read(Item("what is this?", picture, "1"))
    with pytest.raises(ItemError, match=f"a question of {least} ids"):
        replace(bare, longest=least - 1).read(Item("what is this?", picture, "1"))


@pytest.fixture
def clip_student(clip_bundle):
    return Student.of(Bundle.of(clip_bundle()))


def test_of_a_clip_as_many_frames_are_read_as_the_student_knows(clip_student):
    student, rng = clip_student, np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (8, 8, 3)).astype(np.uint8)) for _ in range(5)]
    frames = tuple(encoded(one) for one in pictures)
    read = student.read(Item("what moves?", frames, "1"))
    tokens, grid = stacked(student.shared.encode([pictures[i] for i in (0, 2, 4)]))
    np.testing.assert_array_equal(read.tokens, tokens)
    assert read.grid == grid == (12, 6, 2)
    one = student.read(Item("what moves?", frames[:1], "1"))
    np.testing.assert_array_equal(one.tokens.reshape(3, 4, -1), read.tokens[None, :4].repeat(3, 0))
    assert np.isfinite(student.answer([read, one], student.resident.initial).entropy).all()


def test_clips_and_pictures_are_not_taken_for_one_another(clip_student, student, picture):
    with pytest.raises(ItemError, match="a picture, and the student reads clips of 3 frames; allowed: 'fr"):
        clip_student.read(Item("what moves?", picture, "1"))
    with pytest.raises(ItemError, match="frames of a clip, and the student reads pictures; allowed: 'image'"):
        student.read(Item("what is this?", (picture, picture), "1"))


def test_frames_of_two_sizes_and_damaged_ones_are_refused(clip_student, picture):
    small = encoded(Image.new("RGB", (4, 4)))
    with pytest.raises(ItemError, match=r"frames of \(48, 48\) and of \(4, 4\) pixels; allowed: one size"):
        clip_student.read(Item("what moves?", (picture, small, picture), "1"))
    with pytest.raises(ItemError, match="cannot be used: none of PNG"):
        clip_student.read(Item("what moves?", (picture, b"x", picture), "1"))


def test_pixels_of_a_clip_are_bounded_together_and_a_frame_is_opened_once(clip_student, picture, monkeypatch):
    monkeypatch.setattr(answering, "MOST_PIXELS", 2 * 48 * 48)
    other, third = (encoded(Image.new("RGB", (48, 48), (shade, 0, 0))) for shade in (1, 2))
    clip_student.read(Item("what moves?", (picture, other, picture), "1"))
    with pytest.raises(ItemError, match="frames of more than 4608 pixels together"):
        clip_student.read(Item("what moves?", (picture, other, third), "1"))


@pytest.mark.parametrize(
    "data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(50), b"GIF89a" + b"\xff" * 40]
)
def test_damaged_pictures_are_refused(student, data):
    with pytest.raises(ItemError, match="a picture that cannot be used"):
        student.read(Item("what is this?", data, "1"))


def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(monkeypatch):
    data = encoded(Image.new("RGB", (300, 200)))
    assert opened(data).size == (300, 200)
    monkeypatch.setattr(answering, "MAX_PIXELS", 50_000)
    with pytest.raises(ValueError, match="300 x 200 pixels"):
        opened(data)
    monkeypatch.setattr(answering, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="allowed: 10"):
        opened(data)


def test_what_is_no_picture_is_said_in_words_of_whoever_asks():
    with pytest.raises(ValueError, match=r"^none of PNG, JPEG"):
        answering.opened(b"no picture")


def test_a_device_opens_a_picture_as_a_pack_does():
    sideways, lying, deep = Image.Exif(), io.BytesIO(), io.BytesIO()
    sideways[ORIENTATION] = 6
    Image.new("RGB", (6, 4)).save(lying, "JPEG", exif=sideways)
    Image.fromarray(np.full((4, 4), 100 * 256, np.uint16)).save(deep, "PNG")
    assert opened(lying.getvalue()).size == (4, 6)
    assert opened(deep.getvalue()).getpixel((0, 0)) == (100, 100, 100)
    for data in (lying.getvalue(), deep.getvalue()):
        assert opened(data).tobytes() == open_picture(data).tobytes()
