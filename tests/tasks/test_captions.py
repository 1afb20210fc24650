"""CIDEr and BLEU-4: by hand where it is short, and beside what pycocoevalcap 1.2 gave for the same texts."""

import math
import random

import pytest

from cdc_flower.tasks import TASKS, Truth
from cdc_flower.tasks.captions import Cider, bleu4, words

TEXT = "a man woman dog cat rides sits on the red blue bike bench with in park street and two of"
WORDS = TEXT.split()


def drawn(count: int = 40) -> tuple[list[str], list[Truth]]:
    """Captions of drawn words, each near one of its five references."""
    rng = random.Random(0)
    truths = [
        Truth("x", tuple(" ".join(rng.choices(WORDS, k=rng.randint(4, 14))) for _ in range(5)))
        for _ in range(count)
    ]
    said = [
        " ".join(rng.choice(t.answers).split()[:-1] + rng.choices(WORDS, k=rng.randint(0, 4))) for t in truths
    ]
    return said, truths


@pytest.mark.parametrize(
    ("text", "found"),
    [  # what Stanford's tokenizer gives, as pycocoevalcap uses it
        ("A man's T-shirt, isn't it?", "a man 's t-shirt is n't it"),
        ("A close-up of a stop sign in New York City.", "a close-up of a stop sign in new york city"),
        ("There are 2.5 apples & 10,000 pears", "there are 2.5 apples & 10,000 pears"),
        ("He can't see the dog's toys; they're red!", "he ca n't see the dog 's toys they 're red"),
        ('A "quoted" sign reads STOP.', "a quoted sign reads stop"),
        ("the car at 5:30 p.m. near U.S. flag", "the car at 5:30 p.m. near u.s. flag"),
        ("a black/white photo of a cat -- sleeping", "a black/white photo of a cat sleeping"),
        ("50% off, $5 sale", "50 % off $ 5 sale"),
        ("girls' shoes", "girls shoes"),
    ],
)
def test_words_are_those_of_the_usual_tokenizer(text, found):
    assert " ".join(words(text)) == found


def test_cider_of_one_word_by_hand():
    """Documents "red" and "blue": weight log 2 each; n-grams of n = 1 alone: 10 * (1 + 0 + 0 + 0) / 4."""
    truths = [Truth("red", ("red",)), Truth("blue", ("blue",))]
    worth = Cider(truths)
    assert worth("Red!", truths[0]) == pytest.approx(2.5)
    assert worth("blue", truths[0]) == 0
    assert worth("", truths[0]) == 0


def test_cider_clips_counts_and_pays_for_length_by_hand():
    """`red red`: min(2w, w) w / (2w * w) = 1/2 for n = 1, one bigram more than the reference: exp(-1/72)."""
    truths = [Truth("red", ("red",)), Truth("blue", ("blue",))]
    assert Cider(truths)("red red", truths[0]) == pytest.approx(10 * 0.5 * math.exp(-1 / 72) / 4)


def test_words_of_every_document_weigh_nothing():
    truths = [Truth("x", ("a red",)), Truth("x", ("a blue",))]
    worth = Cider(truths)
    assert worth("a", truths[0]) == 0
    assert worth("a red", truths[0]) == pytest.approx(10 * 2 / 4)


def test_means_are_those_of_pycocoevalcap():
    said, truths = drawn()
    worth = TASKS["captions"].fit(truths)
    assert sum(map(worth, said, truths)) / len(said) == pytest.approx(2.0064990415342816, abs=1e-12)
    assert bleu4(said, truths) == pytest.approx(0.7973561668075719, abs=1e-9)


def test_pycocoevalcap_itself_gives_each_caption_the_same():
    cider = pytest.importorskip("pycocoevalcap.cider.cider")
    said, truths = drawn()
    given = {i: [text] for i, text in enumerate(said)}
    _, each = cider.Cider().compute_score({i: list(t.answers) for i, t in enumerate(truths)}, given)
    assert list(map(Cider(truths), said, truths)) == pytest.approx(list(each), abs=1e-12)


def test_a_caption_is_worth_the_same_whoever_else_is_asked():
    said, truths = drawn()
    worth = TASKS["captions"].fit(truths)
    alone = [worth(said[3], truths[3]) for _ in range(2)]
    assert alone == [list(map(worth, said, truths))[3]] * 2


def test_bleu_by_hand():
    """`the cat sat on` in `the cat sat on a mat`: all n-grams right, 4 words for 6: exp(1 - 6/4)."""
    truth = Truth("x", ("the cat sat on a mat",))
    assert bleu4(["the cat sat on"], [truth]) == pytest.approx(math.exp(-0.5))
    assert bleu4(["the cat sat on a mat"], [truth]) == pytest.approx(1.0)
    assert bleu4(["a dog"], [truth]) == 0
    assert bleu4([""], [truth]) == 0
