"""What each score says of a sample and of its tokens, on a real student and on one whose truth is known."""

from __future__ import annotations

import dataclasses
from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from cdc_flower.models import vlm
from cdc_flower.models.student import device_model
from cdc_flower.stages import UplinkConfig
from cdc_flower.uplink import scores as uncertainty
from cdc_flower.uplink.scores import SAMPLE_SCORES, TOKEN_SCORES, Seen, token_score
from cdc_flower.wire import gate

CONFIG = UplinkConfig()


@pytest.fixture(scope="module")
def student(shared, config):
    return device_model(shared, config.pair)


@pytest.fixture(scope="module")
def inputs(shared) -> vlm.Inputs:
    """Three pictures whose tokens differ in norm, with questions of unequal length."""
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(3, shared.n_tokens, shared.width)) * rng.uniform(
        0.2, 2, (3, shared.n_tokens, 1)
    )
    asked = ["where is the star?", "what is red?", "which is further west, the star or the ring?"]
    return vlm.collate(shared.text, tokens.astype(np.float32), [shared.text.question_ids(q) for q in asked])


def score(name: str, student, shared, inputs: vlm.Inputs, seed: int = 0) -> np.ndarray:
    return token_score(name)(student, shared.text, inputs, np.random.default_rng(seed))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of ranks."""
    return float(np.corrcoef(*(pd.Series(x.ravel()).rank() for x in (a, b)))[0, 1])


@pytest.mark.parametrize("name", ["attention", "sampled", "norm", "released"])
def test_a_minus_before_its_name_turns_a_score_round(name, student, shared, inputs):
    down = score(f"-{name}", student, shared, inputs)
    np.testing.assert_array_equal(down, -score(name, student, shared, inputs))


# --- token scores ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOKEN_SCORES)
def test_a_token_score_is_one_finite_number_per_token(name, student, shared, inputs):
    scores = score(name, student, shared, inputs)
    assert (scores.shape, scores.dtype) == ((3, shared.n_tokens), np.float32)
    assert np.isfinite(scores).all()
    assert scores.std(1).min() > 0


@pytest.mark.parametrize("name", TOKEN_SCORES)
def test_the_same_generator_gives_the_same_scores(name, student, shared, inputs):
    first, again, other = (score(name, student, shared, inputs, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    by_chance = name in ("mc_dropout", "random", "released", "sampled")
    assert np.array_equal(first, other) != by_chance


@pytest.mark.parametrize("name", ["attention", "entropy", "norm"])
def test_a_score_of_a_picture_does_not_depend_on_its_neighbours_in_the_batch(name, student, shared, inputs):
    whole = score(name, student, shared, inputs)
    fields = {k: v[:1] for k, v in vars(inputs).items() if v is not None}
    fields |= {k: fields[k][:, : int(inputs.length[0])] for k in ("ids", "position_ids", "mask")}
    alone = score(name, student, shared, dataclasses.replace(inputs, **fields))
    np.testing.assert_allclose(alone[0], whole[0], rtol=1e-3, atol=1e-6)


def test_attention_shares_are_not_negative_and_sum_to_at_most_one(student, shared, inputs):
    scores = score("attention", student, shared, inputs)
    assert scores.min() >= 0
    assert (scores.sum(1) <= 1 + 1e-5).all()
    assert (scores.sum(1) > 0.1).all()


def test_attention_is_the_mean_over_layers_and_heads_of_the_questions_rows(student, shared, inputs):
    scores = score("attention", student, shared, inputs)
    with torch.no_grad():
        maps = vlm.run(student, inputs, inputs.mask.long(), output_attentions=True).attentions
    for b in range(3):
        start, stop = int(inputs.question[b]), int(inputs.length[b])
        rows = torch.stack(maps)[:, b, :, start:stop, inputs.slots[b]].mean((0, 1))  # (n, N)
        expected = (rows.mean(0) + rows[-1]) / 2
        np.testing.assert_allclose(scores[b], expected.numpy(), rtol=1e-4, atol=1e-7)


def test_sampled_draws_tokens_in_proportion_to_a_power_of_their_attention():
    attended = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    scores = TOKEN_SCORES["sampled"].draw(np.tile(attended, (20_000, 1)), np.random.default_rng(0))
    share = attended**uncertainty.SHARPNESS
    first, second = np.sort(np.argsort(-scores, 1)[:, :2]).T
    drawn = np.bincount(scores.argmax(1), minlength=4) / len(scores)
    np.testing.assert_allclose(drawn, share / share.sum(), atol=0.01)
    both = share[2] * share[3] / share.sum() * (1 / (share.sum() - share[2]) + 1 / (share.sum() - share[3]))
    np.testing.assert_allclose(((first == 2) & (second == 3)).mean(), both, atol=0.01)


def test_entropy_is_that_of_the_models_prediction_at_a_tokens_place(student, shared, inputs):
    found = score("entropy", student, shared, inputs)
    out = vlm.forward(student, inputs, attention=True)
    probs = vlm.logits(student, inputs.at_tokens(out.hidden)).detach().double().softmax(-1).numpy()
    np.testing.assert_allclose(found, -(probs * np.log(probs)).sum(-1), rtol=1e-3)
    assert found.min() > 0


def test_norm_is_the_mean_square_of_a_token(student, shared, inputs):
    np.testing.assert_allclose(
        score("norm", student, shared, inputs), (inputs.tokens.numpy() ** 2).mean(-1), rtol=1e-5
    )


def test_the_released_score_is_the_tokens_norm_in_disguise(student, shared, inputs):
    """Variance of dropped-out features is p / (1 - p) times their mean square: no model is asked."""
    released, norm = (score(name, student, shared, inputs) for name in ("released", "norm"))
    assert spearman(released, norm) > 0.9
    mean = np.mean([score("released", student, shared, inputs, seed) for seed in range(30)], 0)
    np.testing.assert_allclose(mean.mean(), norm.mean(), rtol=0.03)


def test_random_scores_know_nothing_of_the_picture(student, shared, inputs):
    other = dataclasses.replace(inputs, tokens=inputs.tokens * 5 + 1)
    first, second = (score("random", student, shared, x) for x in (inputs, other))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", ["mc_dropout=1", "mc_dropout=1025", "mc_dropout=x", "norm=4", "none", "="])
def test_a_number_of_passes_is_for_mc_dropout_alone_and_bounded(name):
    with pytest.raises(KeyError):
        token_score(name)


def test_mc_dropout_with_a_number_makes_so_many_passes_and_says_so(student, shared, inputs):
    assert (token_score("mc_dropout=8").passes, token_score("-mc_dropout=8").sign) == (8, -1.0)
    np.testing.assert_array_equal(
        score("mc_dropout=4", student, shared, inputs), score("mc_dropout", student, shared, inputs)
    )
    values = [len(np.unique(score(f"mc_dropout={n}", student, shared, inputs)[0])) for n in (4, 8)]
    assert values[0] <= 8 < values[1]  # four passes tell at most eight groups of tokens apart


# --- mc_dropout where the truth is known ---------------------------------------------------------------


def stub(weights: np.ndarray, asked: list[np.ndarray]):
    """A forward pass whose answer's log odds are the sum of the weights of the tokens that are present."""

    def forward(model, inputs):
        present = (inputs.positions >= 0).float()
        asked.extend(present.numpy())
        logit = present @ torch.tensor(weights, dtype=torch.float32)
        return SimpleNamespace(logits=torch.stack([torch.zeros_like(logit), logit], -1)[:, None])

    return forward


def planted(n: int) -> vlm.Inputs:
    every, none = torch.arange(n)[None], torch.zeros(1, 0, dtype=torch.int64)
    return vlm.Inputs(torch.zeros(1, n, 2), every, every, none, none, none.bool(), none, none, None)


def test_mc_dropout_ranks_a_planted_decisive_token_above_all_others(monkeypatch):
    weights = np.full(16, 0.05)
    weights[11] = 4.0
    monkeypatch.setattr(vlm, "forward", stub(weights, []))
    for seed in range(5):
        scores = uncertainty.mc_dropout(None, None, planted(16), np.random.default_rng(seed), passes=64)
        assert scores[0].argmax() == 11
        assert scores[0, 11] > 5 * np.delete(scores[0], 11).max()


def test_mc_dropout_tends_to_the_exact_effect_of_a_tokens_presence(monkeypatch):
    """All 2^5 subsets give the exact squared distance between the answers with and without a token."""
    weights = np.array([2.0, -1.0, 0.5, 0.0, 0.25])
    subsets = np.array(list(product([0, 1], repeat=5)))
    yes = 1 / (1 + np.exp(-subsets @ weights))
    change = [yes[subsets[:, i] == 1].mean() - yes[subsets[:, i] == 0].mean() for i in range(5)]
    exact = 2 * np.square(change)  # over both words
    monkeypatch.setattr(vlm, "forward", stub(weights, []))
    found = uncertainty.mc_dropout(None, None, planted(5), np.random.default_rng(0), passes=4000)
    np.testing.assert_allclose(found[0], exact, rtol=0.1, atol=2e-3)


def test_mc_dropout_asks_as_often_as_it_is_set_to_with_half_of_the_tokens(monkeypatch):
    asked: list[np.ndarray] = []
    monkeypatch.setattr(vlm, "forward", stub(np.ones(40), asked))
    uncertainty.mc_dropout(None, None, planted(40), np.random.default_rng(0), passes=25)
    assert len(asked) == 25
    assert np.mean(asked) == pytest.approx(0.5, abs=0.06)


# --- sample scores ---------------------------------------------------------------------------------------


def answers(steps: list[list[list[float]]]) -> vlm.Answers:
    """Statistics of answers from the probabilities of each step."""
    entropy = [np.mean([-sum(p * np.log(p) for p in step) for step in sample]) for sample in steps]
    tops = [[sorted(step)[::-1] for step in sample] for sample in steps]
    margin = [np.mean([t[0] - t[1] for t in sample]) for sample in tops]
    log_prob = [sum(np.log(t[0]) for t in sample) for sample in tops]
    confidence = np.exp([total / len(sample) for total, sample in zip(log_prob, steps, strict=True)])
    return vlm.Answers(
        [[1]] * len(steps),
        ["a"] * len(steps),
        np.array(entropy),
        np.array(margin),
        np.array(log_prob),
        confidence,
        np.zeros(len(steps)),
    )


@pytest.mark.parametrize("name", ["entropy", "margin", "released"])
def test_a_sample_score_is_higher_where_the_student_is_less_sure(name):
    given = answers([[[0.9, 0.1]], [[0.7, 0.3]], [[0.51, 0.49]]])
    found = SAMPLE_SCORES[name](Seen(given), np.random.default_rng(0))
    assert found.shape == (3,)
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize(("name", "biased"), [("entropy", False), ("margin", False), ("released", True)])
def test_only_the_released_score_prefers_a_long_answer_to_an_equally_sure_short_one(name, biased):
    given = answers([[[0.8, 0.2]], [[0.8, 0.2]] * 6])
    short, long = SAMPLE_SCORES[name](Seen(given), np.random.default_rng(0))
    assert (long > short + 1e-9) == biased


def test_random_sample_scores_come_from_the_generator_alone():
    one, two = answers([[[0.9, 0.1]]] * 4), answers([[[0.6, 0.4]]] * 4)
    a, b = (SAMPLE_SCORES["random"](Seen(x), np.random.default_rng(3)) for x in (one, two))
    np.testing.assert_array_equal(a, b)
    assert len(set(a)) == 4


def test_mixed_takes_the_most_uncertain_and_random_samples_in_turn():
    given = answers([[[0.5 + 0.04 * i, 0.5 - 0.04 * i]] for i in range(12)])  # the first is the least sure
    orders = [np.argsort(-SAMPLE_SCORES["mixed"](Seen(given), np.random.default_rng(s))) for s in range(200)]
    assert all(order[0] == 0 and sorted(order) == list(range(12)) for order in orders)
    half = np.array([order[:6] for order in orders])
    assert all({0, 1, 2} <= set(row) for row in half)  # every second place is the next by uncertainty
    drawn = np.bincount(half.ravel(), minlength=12)[3:]
    assert drawn.min() > 30  # the sure ones have their chance


# --- samples by what the cloud says, and by kinds of question -----------------------------------------


def gated(least: float, n: int = 40) -> tuple[Seen, np.ndarray]:
    """Samples of two questions, and a gate that gives the first a chance of 0.8 and the second 0.1."""
    given = answers([[[0.9, 0.1]]] * n)
    asked = [[5] if i % 2 else [6] for i in range(n)]
    weights = np.zeros(gate.WEIGHTS)
    places = [gate.features([k], [1], float(given.entropy[0])) for k in (5, 6)]
    own = [next(p for p in places[k] if p not in places[1 - k]) for k in (0, 1)]
    weights[own] = np.log([0.8 / 0.2, 0.1 / 0.9])
    return Seen(given, asked, weights, least), np.array([i % 2 == 1 for i in range(n)])


def test_worth_prefers_what_the_gate_calls_news_and_leaves_the_rest_a_chance():
    seen, news = gated(0.0)
    orders = [np.argsort(-SAMPLE_SCORES["worth"](seen, np.random.default_rng(s)))[:20] for s in range(50)]
    share = np.mean([news[order].mean() for order in orders])
    assert 0.85 < share < 1
    assert all(len(set(order.tolist())) == 20 for order in orders)


def test_below_the_least_worth_a_sample_goes_up_with_the_share_that_it_has():
    seen, news = gated(0.5)
    sent = np.mean([SAMPLE_SCORES["worth"](seen, np.random.default_rng(s)) > -np.inf for s in range(400)], 0)
    assert sent[news].min() == 1.0
    np.testing.assert_allclose(sent[~news].mean(), 0.1 / 0.5, atol=0.02)


def test_without_a_gate_worth_is_chance_and_everything_goes():
    seen, _ = gated(1.0)
    found = SAMPLE_SCORES["worth"](dataclasses.replace(seen, gate=None), np.random.default_rng(0))
    assert np.isfinite(found).all()
    assert len(set(found)) == len(found)


def test_kinds_takes_every_question_once_before_any_twice():
    asked = [[1]] * 6 + [[2]] * 3 + [[3]]
    seen = Seen(answers([[[0.9, 0.1]]] * len(asked)), asked)
    for s in range(20):
        order = np.argsort(-SAMPLE_SCORES["kinds"](seen, np.random.default_rng(s)))
        assert [sorted(asked[i][0] for i in order[:3]), sorted(asked[i][0] for i in order[3:5])] == [
            [1, 2, 3],
            [1, 2],
        ]
