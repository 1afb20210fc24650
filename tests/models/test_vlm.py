from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cdc_flower.models import vlm
from cdc_flower.models.student import twin_model


@pytest.fixture(scope="module")
def tokens(shared):
    return np.random.default_rng(0).normal(size=(4, shared.n_tokens, shared.width)).astype(np.float32)


@pytest.fixture(scope="module")
def questions(shared):
    asked = [
        "where is the star?",
        "is there a red heart?",
        "what is at the top?",
        "how many red things are there?",
    ]
    return [shared.text.question_ids(q) for q in asked]


def test_all_tokens_give_the_logits_of_hugging_faces_own_llava(shared, teacher):
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8))
    pixels = shared.processor(images=[picture], return_tensors="pt")["pixel_values"]
    asked = shared.text.question_ids("where is the star?")
    ids = torch.tensor(
        [[*shared.text.prefix_ids, *[teacher.model.config.image_token_index] * shared.n_tokens, *asked]]
    )
    theirs = teacher.model(input_ids=ids, pixel_values=pixels).logits[:, -1]
    tower = teacher.model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]
    ours = vlm.forward(teacher.model, shared.text, vlm.collate(shared.text, tower.numpy(), [asked])).logits[
        :, -1
    ]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    encoded = shared.encode([picture])
    assert encoded.dtype == np.float16
    np.testing.assert_allclose(encoded, tower.numpy(), atol=2e-2)


def test_keeping_every_token_by_position_changes_nothing(shared, teacher, tokens, questions):
    every = [np.arange(shared.n_tokens)] * 4
    a = vlm.forward(teacher.model, shared.text, vlm.collate(shared.text, tokens, questions)).logits
    b = vlm.forward(
        teacher.model, shared.text, vlm.collate(shared.text, list(tokens), questions, None, every)
    ).logits
    torch.testing.assert_close(a, b)


def test_dropped_tokens_are_absent_not_zeroed(shared, teacher, tokens, questions):
    kept = [np.arange(0, shared.n_tokens, 2)] * 4
    sparse = vlm.collate(
        shared.text, [t[k] for t, k in zip(tokens, kept, strict=True)], questions, None, kept
    )
    zeroed = tokens.copy()
    zeroed[:, 1::2] = 0
    absent = vlm.forward(teacher.model, shared.text, sparse)
    zeros = vlm.forward(teacher.model, shared.text, vlm.collate(shared.text, zeroed, questions))
    assert absent.hidden.shape[1] == zeros.hidden.shape[1] - shared.n_tokens // 2
    assert not torch.allclose(absent.logits, zeros.logits, atol=1e-3)


def test_neighbours_of_an_absent_token_keep_their_positions(shared, teacher, tokens, questions):
    kept = [np.array([3, 10, 40])] * 4
    inputs = vlm.collate(
        shared.text, [t[k] for t, k in zip(tokens, kept, strict=True)], questions, None, kept
    )
    _, position_ids, _ = vlm.embed(teacher.model, shared.text, inputs)
    p = len(shared.text.prefix_ids)
    assert position_ids[0, : p + 4].tolist() == [*range(p), p + 3, p + 10, p + 40, p + shared.n_tokens]


def test_padding_of_a_batch_does_not_change_a_sample(shared, teacher, tokens, questions):
    kept = [np.arange(5), np.arange(20), np.arange(1), np.arange(64)]
    parts = [t[k] for t, k in zip(tokens, kept, strict=True)]
    together = vlm.forward(
        teacher.model, shared.text, vlm.collate(shared.text, parts, questions, None, kept)
    ).logits
    for i in range(4):
        alone = vlm.collate(shared.text, [parts[i]], [questions[i]], None, [kept[i]])
        torch.testing.assert_close(
            together[i : i + 1], vlm.forward(teacher.model, shared.text, alone).logits, atol=1e-5, rtol=1e-4
        )


def test_greedy_answers_are_what_teacher_forcing_calls_correct(shared, tokens, questions, config):
    twin = twin_model(shared, config.pair)
    found = vlm.answer(twin, shared.text, vlm.collate(shared.text, tokens, questions), 6)
    ended = [len(i) < 6 for i in found.ids]
    same = vlm.correct(twin, shared.text, vlm.collate(shared.text, tokens, questions, found.ids))
    assert same[np.array(ended)].all()
    other = [[*i, 7] if i[-1:] != [7] else [*i, 8] for i in found.ids]
    assert not vlm.correct(twin, shared.text, vlm.collate(shared.text, tokens, questions, other)).any()


def test_greedy_decoding_with_a_cache_equals_decoding_without(shared, teacher, tokens, questions):
    found = vlm.answer(teacher.model, shared.text, vlm.collate(shared.text, tokens, questions), 4)
    for i in range(4):
        ids: list[int] = []
        for _ in range(4):
            inputs = vlm.collate(shared.text, tokens[i : i + 1], [questions[i]], [ids])
            best = int(vlm.forward(teacher.model, shared.text, inputs).logits[0, len(ids)].argmax())
            if best == shared.text.eos:
                break
            ids.append(best)
        assert found.ids[i] == ids


def test_entropy_and_confidence_are_length_normalised(shared, teacher, tokens, questions):
    found = vlm.answer(teacher.model, shared.text, vlm.collate(shared.text, tokens, questions), 4)
    assert ((found.entropy >= 0) & (found.entropy <= np.log(shared.vocab) + 1e-6)).all()
    steps = np.array([min(len(i) + 1, 4) for i in found.ids])
    np.testing.assert_allclose(found.confidence, np.exp(found.log_prob / steps), rtol=1e-5)


@pytest.mark.parametrize("max_new", [1, 2, 6])
def test_the_largest_logits_of_an_answer_are_those_of_teacher_forcing_also_where_it_is_cut(
    shared, teacher, tokens, questions, max_new
):
    found = vlm.answer(
        teacher.model, shared.text, vlm.collate(shared.text, tokens, questions), max_new, top_k=3
    )
    told = vlm.collate(shared.text, tokens, questions, found.ids)
    with torch.no_grad():
        logits = vlm.forward(teacher.model, shared.text, told).logits
    for i, ids in enumerate(found.ids):
        assert len(ids) <= max_new
        assert found.top_ids[i].shape == found.top_logits[i].shape == (len(ids) + 1, 3)
        assert found.top_ids[i][: len(ids), 0].tolist() == ids
        expected = logits[i, : len(ids) + 1].topk(3, -1).values.numpy()
        np.testing.assert_allclose(found.top_logits[i], expected, atol=1e-4)


def test_pictures_as_read_are_a_square_of_the_tower_and_give_the_same_tokens(shared, teacher):
    ramp = np.linspace(0, 255, 300)
    down, along = np.broadcast_arrays(ramp[:200, None], ramp)
    large = np.stack([down, along, (down + along) / 2], -1)
    images = [Image.fromarray(large.astype(np.uint8)), Image.new("L", (7, 9), 120)]
    read = vlm.as_read(shared.processor, images)
    assert read.shape == (2, shared.side, shared.side, 3)
    assert read.dtype == np.uint8
    assert set(read[1].ravel().tolist()) == {120}
    again = vlm.as_read(shared.processor, [Image.fromarray(p) for p in read])
    np.testing.assert_array_equal(again, read)
    direct = shared.encode(images)
    by_read = shared.encode([Image.fromarray(p) for p in read])
    np.testing.assert_allclose(by_read.astype(float), direct.astype(float), atol=2e-2)


def test_grey_is_what_normalisation_makes_nothing_of(shared):
    canvas = np.broadcast_to(vlm.grey(shared.processor), (shared.side, shared.side, 3)).astype(np.uint8)
    made = shared.processor(images=[Image.fromarray(canvas)], return_tensors="np")["pixel_values"]
    assert np.abs(made).max() < 1 / 127
    assert vlm.grey(object()).tolist() == [128, 128, 128]


def test_answers_are_compared_without_case_and_outer_punctuation():
    assert vlm.normalise("  Top   Left. ") == "top left"
