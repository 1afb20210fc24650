"""Many questions of a picture in one sequence cost nothing in meaning; the tokenizer is of whole words."""

import dataclasses

import numpy as np
import pandas as pd
import torch
from torch import nn

from cdc_flower.models import vlm
from experiments.pretrain import language


@torch.no_grad()
def test_questions_of_one_picture_do_not_see_each_other(shared, teacher):
    rng = np.random.default_rng(0)
    asked = [
        [
            ("what colour is the disc?", "red"),
            ("how many stars are there?", "three"),
            ("where is the star?", "top left"),
        ],
        [("is there a disc?", "yes")],
    ]
    turns = [
        [(shared.text.question_ids(q), shared.text.answer_ids(a)) for q, a in picture] for picture in asked
    ]
    kept = [np.array([0, 5, 9, 40]), np.arange(shared.n_tokens)]
    tokens = [rng.normal(size=(len(k), shared.width)).astype(np.float32) for k in kept]
    together = language.turns_loss(
        teacher.model, language.collate_turns(shared.text, tokens, kept, turns), 0.0
    )
    alone = []
    for picture, t, k in zip(turns, tokens, kept, strict=True):
        for question, answer in picture:
            inputs = vlm.collate(shared.text, [t], [question], [answer], [k])
            logits = vlm.forward(teacher.model, inputs).logits[0]
            alone.append(nn.functional.cross_entropy(logits, inputs.answer_ids[0], reduction="none"))
    torch.testing.assert_close(together, torch.cat(alone).mean(), atol=1e-5, rtol=1e-5)


def test_the_tokenizer_knows_every_word_in_lower_case_and_no_question_mark():
    frame = pd.DataFrame({"question": ["What Colour, is it?", "is it?"], "answer": ["Dark Red", "no"]})
    made = language.make_tokenizer(frame)
    special = {"<pad>", "<s>", "</s>", "<unk>", "<image>"}
    assert set(made.get_vocab()) - special == {"what", "colour", ",", "is", "it", "dark", "red", "no"}
    ids = made("WHAT colour, is it?", add_special_tokens=False)["input_ids"]
    assert made.convert_ids_to_tokens(ids) == ["what", "colour", ",", "is", "it"]


def test_captions_of_clips_are_no_questions_unless_there_is_nothing_else(clip_shared):
    frame = pd.DataFrame(
        {
            "image_row": [0, 0, 1],
            "qtype": ["where", "caption", "caption"],
            "question": ["where?", "describe", "describe"],
            "answer": ["left", "it goes left", "it stays"],
        }
    )
    assert language.captions_of(frame) == {0: ["it goes left"], 1: ["it stays"]}
    assert language.questions_of(frame, clip_shared.text)["answer"].tolist() == ["left"]
    assert len(language.questions_of(frame[1:], clip_shared.text)) == 2
    pictures = dataclasses.replace(clip_shared.text, frames=0)
    assert len(language.questions_of(frame, pictures)) == 3


def test_some_frames_of_a_clip_are_kept_whole():
    rng = np.random.default_rng(0)
    kept = [language._frames(12, 3, rng).reshape(-1, 4) for _ in range(20)]
    assert {len(k) for k in kept} == {2, 3}
    assert all((k == k[:, :1] + np.arange(4)).all() and (k[:, 0] % 4 == 0).all() for k in kept)
