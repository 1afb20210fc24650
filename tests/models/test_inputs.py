"""The prompt is the checkpoint's own; what is absent leaves a gap in the positions."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer

from cdc_flower.config import parse
from cdc_flower.data.features import Grid
from cdc_flower.data.world import instructed
from cdc_flower.models import vlm
from cdc_flower.models.folders import PairError
from cdc_flower.models.shared import load_shared
from cdc_flower.stages import PairConfig
from cdc_flower.tasks.task import SHORT
from tests.tiny.templates import LLAVA


@pytest.fixture
def template(pair_folder, tmp_path):
    """`template(words)`: the prompt of the student with another chat template; None = without one."""

    def of(words):
        folder = shutil.copytree(pair_folder / "student", tmp_path / "student")
        (folder / "chat_template.jinja").unlink()
        if words is not None:
            (folder / "chat_template.jinja").write_text(words)
        return load_shared(PairConfig(teacher="nowhere", student=str(folder)), "x").text

    return of


def test_the_prompt_of_the_packaged_pair_is_start_picture_question(shared):
    text = shared.text
    picture = [text.image_id] * shared.n_tokens
    assert text.prefix_ids() == [text.tokenizer.bos_token_id, *picture]
    asked = text.tokenizer("where is the star?", add_special_tokens=False)["input_ids"]
    assert text.question_ids("where is the star?") == asked


def test_another_template_gives_another_prompt(template):
    text = template(LLAVA)
    assert text.prompt("where?") == "USER: <image>\nwhere? ASSISTANT:"
    unknown = text.tokenizer.unk_token_id
    assert text.prefix_ids()[:2] == [unknown, unknown]  # "user" and ":" are no words of this tokenizer
    assert text.question_ids("where?")[-2:] == [unknown, unknown]


def test_the_template_of_an_older_processor_is_found(template, pair_folder, tmp_path):
    with pytest.raises(PairError):
        template(None)
    folder = tmp_path / "student"
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": LLAVA}))
    text = load_shared(PairConfig(teacher="nowhere", student=str(folder)), "x").text
    assert text.prompt("where?") == "USER: <image>\nwhere? ASSISTANT:"


def test_a_checkpoint_without_a_template_is_refused_in_a_line_that_says_what_to_add(template):
    with pytest.raises(PairError, match=r"has no chat template; add a file chat_template\.jinja") as told:
        template(None)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("words", "times"), [("no picture", 0), ("<image><image>", 2)])
def test_a_template_that_does_not_write_the_picture_once_is_refused(template, words, times):
    with pytest.raises(PairError, match=f"writes '<image>' {times} times; allowed: once"):
        template(words)


def test_questions_may_have_braces(made):
    text = made.shared.text
    assert text.prompt("where is {star} in {}?").count("{star} in {}") == 1
    assert len(text.question_ids("{where} is the star {0}?")) > len(text.question_ids("star?"))


def test_a_question_cannot_bring_a_picture(made):
    text = made.shared.text
    for word in (text.image, text.mark):
        assert text.prompt(f"where is {word} the star?").count(text.mark) == 1
        assert text.image_id not in text.question_ids(f"where is {word} the star?")
        assert text.question_ids(f"where {word}") == text.question_ids("where ")


def test_prefix_and_question_are_the_prompt(made):
    text = made.shared.text
    for grid in set(made.grids):
        words = text.prompt("is there a red heart?")
        words = words.replace(text.mark, text.family.image_words(text.config, grid, text.word))
        whole = text.tokenizer(words, add_special_tokens=False)["input_ids"]
        assert [*text.prefix_ids(grid), *text.question_ids("is there a red heart?")] == whole
        assert len(text.prefix(grid).slots) == grid.n


def test_words_of_answers_come_back(shared):
    assert shared.text.decode(shared.text.answer_ids("Southeast")) == "southeast"
    assert shared.text.answer_ids("") == []


def test_keeping_every_token_by_position_changes_nothing(made):
    every = [np.arange(grid.n) for grid in made.grids]
    a = vlm.collate(made.shared.text, made.tokens, made.asked, grids=made.grids)
    b = vlm.collate(made.shared.text, made.tokens, made.asked, None, every, grids=made.grids)
    for name, value in vars(a).items():
        assert value is None or value.equal(getattr(b, name)), name


def test_neighbours_of_an_absent_token_keep_their_positions(shared):
    kept = [np.array([3, 10, 40]), np.array([0])]
    tokens = [np.ones((len(k), shared.width)) for k in kept]
    asked = [[5, 6], [7]]
    inputs = vlm.collate(shared.text, tokens, asked, [[8], []], kept)
    n, picture, eos = shared.n_tokens, shared.text.image_id, shared.text.eos
    assert inputs.ids[0].tolist() == [1, picture, picture, picture, 5, 6, 8, eos]
    assert inputs.position_ids[0].tolist() == [0, 4, 11, 41, n + 1, n + 2, n + 3, n + 4]
    assert inputs.position_ids[1, :4].tolist() == [0, 1, n + 1, n + 2]
    assert inputs.slots.tolist() == [[1, 2, 3], [1, -1, -1]]
    assert inputs.positions.tolist() == [[3, 10, 40], [0, -1, -1]]
    assert inputs.mask.sum(1).tolist() == [8, 4]
    assert inputs.question.tolist() == [4, 2]
    assert inputs.length.tolist() == [6, 3]
    assert inputs.answer_ids.tolist() == [[8, eos], [eos, -100]]


def test_slots_are_where_the_pictures_ids_are(made):
    inputs = vlm.collate(made.shared.text, made.tokens, made.asked, grids=made.grids, length=140)
    for row, slots in zip(inputs.ids, inputs.slots, strict=True):
        own = slots[slots >= 0]
        assert (row[own] == made.shared.text.image_id).all()
        assert (own.diff() > 0).all()
    found = inputs.at_tokens(torch.arange(140).expand(3, 140))
    assert (found[inputs.slots < 0] == 0).all()
    assert (found[inputs.slots >= 0] == inputs.slots[inputs.slots >= 0]).all()


def test_tokens_that_do_not_fill_the_picture_are_refused(shared):
    with pytest.raises(ValueError, match="63 tokens for all places"):
        vlm.collate(shared.text, [np.ones((63, shared.width))], [[5]])
    with pytest.raises(ValueError, match="2 tokens for 1 places"):
        vlm.collate(shared.text, [np.ones((2, shared.width))], [[5]], None, [np.array([4])])


def test_prompts_of_a_bounded_number_of_grids_are_kept(make, monkeypatch):
    text = dataclasses.replace(make("qwen2_5_vl").shared.text)
    monkeypatch.setattr("cdc_flower.models.inputs.PREFIXES", 3)
    for cols in (4, 5, 6, 7, 4):
        assert len(text.prefix(Grid(cols, 1, cols)).slots) == cols
    assert len(text._prefixes) == 3


@pytest.mark.parametrize("name", ["smolvlm", "qwen2_5_vl"])
def test_a_question_with_an_instruction_is_the_turn_that_transformers_writes(name, make):
    asked = pd.DataFrame({"question": ["is there a red heart?"]})
    (words,) = instructed(asked, parse({"data.task": "vqa"}).data)["question"]
    shared = make(name).shared
    tokenizer = AutoTokenizer.from_pretrained(shared.path)
    content = [{"type": "image"}, {"type": "text", "text": f"is there a red heart?\n{SHORT}"}]
    turn = {"role": "user", "content": content}
    want = tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    assert shared.text.prompt(words) == want
    grid = Grid(*shared.grid)
    picture = shared.text.family.image_words(shared.config, grid, shared.text.word)
    ids = tokenizer(want.replace(shared.text.mark, picture), add_special_tokens=False)["input_ids"]
    assert shared.text.prefix_ids(grid) + shared.text.question_ids(words) == ids


def test_without_an_end_the_last_step_is_not_taught(shared):
    tokens = np.zeros((2, shared.n_tokens, shared.width))
    both = vlm.collate(shared.text, tokens, [[5], [5]], [[6, 7], [6]], ended=[False, True]).answer_ids
    assert both.tolist() == [[6, 7, -100], [6, shared.text.eos, -100]]
