"""VQAv2's soft accuracy, by hand, and its normalisation, with values of the official script."""

import pytest

from cdc_flower.tasks import TASKS, Truth
from cdc_flower.tasks.vqa import CONTRACTIONS, normalise

WORTH = TASKS["vqa"].fit([])


@pytest.mark.parametrize(("matches", "worth"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_of_ten_references_each_is_left_out_once(matches, worth):
    """1: nine of ten sets hold it, 9 * 1/3 / 10; 3: three sets hold two of them, (3 * 2/3 + 7) / 10."""
    references = ("red",) * matches + tuple(f"other {i}" for i in range(10 - matches))
    assert WORTH("red", Truth("red", references)) == pytest.approx(worth)


@pytest.mark.parametrize("n", [1, 2, 5, 10])
@pytest.mark.parametrize("matches", [0, 1, 2, 5])
def test_the_formula_is_the_mean_over_leave_one_out_sets(n, matches):
    references = ["x"] * min(matches, n) + ["y"] * max(0, n - matches)
    sets = [references[:i] + references[i + 1 :] for i in range(n)]
    by_hand = sum(min(1, others.count("x") / 3) for others in sets) / n
    assert WORTH("x", Truth("x", tuple(references))) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("answer", "normalised"),
    [
        ("Yes", "yes"),
        ("The red car.", "red car"),
        ("a", ""),
        ("two", "2"),
        ("None", "0"),
        ("10,000", "10000"),
        ("10,000 red/blue", "10000 redblue"),  # a comma between digits: no mark leaves a space
        ("red/blue", "red blue"),
        ("t-shirt", "t shirt"),
        ("hot - dog", "hot dog"),
        ("3.5", "3.5"),
        ("mr. smith", "mr smith"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("whats up?", "what's up"),
        ("it's", "it's"),
        ("some\nlines\tof it", "some lines of it"),
        ("shell", "shell"),
    ],
)
def test_answers_are_normalised_as_the_official_script_does_it(answer, normalised):
    assert normalise(answer) == normalised


def test_both_sides_are_normalised():
    assert WORTH("2", Truth("two", ("two",) * 10)) == 1
    assert WORTH("A lot!", Truth("a lot", ("a lot",) * 10)) == 1


def test_contractions_are_those_of_the_official_table():
    assert len(CONTRACTIONS) == 114
    assert {CONTRACTIONS[k] for k in ("ow's'at", "'ows'at", "'ow'sat")} == {"'ow's'at"}
    assert not {"its", "were", "shell", "ill", "id"} & set(CONTRACTIONS)
