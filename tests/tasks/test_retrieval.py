"""Retrieval: ranks against a plain count, and what equal captions and equal scores are worth."""

import numpy as np
import pytest

from cdc_flower.tasks import retrieval


def plain(scores, captions):
    """Ranks of clips for each caption, by sorting; a wrong clip of the same score stands before the right."""
    found = []
    for row, caption in zip(scores.tolist(), captions, strict=True):
        order = sorted(range(len(row)), key=lambda i, row=row, said=caption: (-row[i], captions[i] == said))
        found.append(1 + min(place for place, i in enumerate(order) if captions[i] == caption))
        wrong = [i for i in order[: found[-1] - 1] if captions[i] != caption]
        found[-1] = 1 + len(wrong)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_ranks_are_those_of_sorting(seed):
    rng = np.random.default_rng(seed)
    captions = [f"a{i}" for i in rng.integers(0, 6, 12)]
    scores = rng.integers(0, 5, (12, 12)).astype(float)
    assert retrieval.ranks(scores, retrieval.equal(captions)).tolist() == plain(scores, captions)


def test_figures_of_known_ranks():
    found = retrieval.figures(np.array([1, 1, 3, 7, 20]))
    assert found == {"R@1": 0.4, "R@5": 0.6, "R@10": 0.8, "median rank": 3.0}


def test_one_vector_for_everything_is_the_worst():
    same = np.ones((20, 4)) / 2
    found = retrieval.both_ways(same, same, [str(i) for i in range(20)])
    assert found["text to clip"] == {"R@1": 0, "R@5": 0, "R@10": 0, "median rank": 20}


def test_no_number_is_the_worst():
    broken = np.full((20, 4), np.nan)
    captions = [str(i) for i in range(20)]
    for clips, texts in ((broken, broken), (broken, np.eye(20, 4)), (np.eye(20, 4), broken)):
        for found in retrieval.both_ways(clips, texts, captions).values():
            assert found == {"R@1": 0, "R@5": 0, "R@10": 0, "median rank": 20}


def test_one_score_that_is_no_number_is_farther_than_the_others():
    scores = np.array([[np.nan, 0.1, -0.2], [np.nan, 0.1, -0.2], [0.3, np.nan, -0.2]])
    assert retrieval.ranks(scores, np.eye(3, dtype=bool)).tolist() == [3, 1, 2]


def test_the_two_ways_differ_and_each_finds_its_own():
    clips = np.eye(12)
    texts = np.eye(12)
    texts[3] = texts[4]  # a caption that stands nearer to another clip
    found = retrieval.both_ways(clips, texts, [str(i) for i in range(12)])
    assert found["text to clip"]["R@1"] == pytest.approx(11 / 12)
    assert found["clip to text"]["R@1"] == pytest.approx(10 / 12)
