"""VQAv2's soft accuracy: how many of ten people gave this answer (Antol et al., arXiv 1505.00468, section 3).

For references r_1 .. r_n it is the mean over i of min(1, matches of the others than r_i / 3), so that a model
is judged as one of the people would be: with n = 10 one, two, three or more matches give 0.3, 0.6, 0.9, 1.0.

Both sides are normalised as the official script (GT-Vision-Lab/VQA, vqaEval.py) does it with answers:
punctuation, number words, articles, apostrophes of contractions. One departure: that script leaves references
as they are where all ten agree, so that ten times "a lot" could never be matched; here they are normalised,
too.
"""

from __future__ import annotations

import re
from functools import lru_cache

from cdc_flower.tasks.task import SHORT, Task, Truth, always

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
ARTICLES = ("a", "an", "the")
NUMBERS = {"none": "0"} | {
    word: str(n)
    for n, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
}
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's they'd
they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
CONTRACTED = tuple(_CONTRACTED.split())
"""Contractions that are known by all but one of their apostrophes; "shell" and "were" are other words."""
CONTRACTIONS = {
    word[:at] + word[at + 1 :]: word for word in CONTRACTED for at, letter in enumerate(word) if letter == "'"
} | {"somebody'd": "somebodyd", "someonell": "someone'll"}


@lru_cache(maxsize=65536)
def normalise(answer: str) -> str:
    """The official normalisation of an answer."""
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    numbered = re.search(r"\d,\d", text) is not None
    found = text
    for mark in PUNCTUATION:
        outer = f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if outer or numbered else " ")
    found = re.sub(r"\.(?!\d)", "", found)
    words = [NUMBERS.get(word, word) for word in found.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def vqa(said: str, truth: Truth) -> float:
    """The soft accuracy of an answer, 0 to 1."""
    own, n = normalise(said), len(truth.answers)
    matches = sum(normalise(reference) == own for reference in truth.answers)
    # leaving one of the matches out leaves one less; leaving another reference out leaves them all
    return (matches * min(1.0, (matches - 1) / 3) + (n - matches) * min(1.0, matches / 3)) / n


VQA = Task(always(vqa), needs=("answers",), ask=SHORT)
