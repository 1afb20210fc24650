"""Captions: CIDEr, with BLEU-4, METEOR and SPICE beside it.

CIDEr is CIDEr-D (Vedantam et al., arXiv 1411.5726, section 5), the one that the COCO server and pycocoevalcap
report. For a caption c and a reference r, as vectors of weights tf * (log N - log max(1, df)) over n-grams k,

    10 * mean over n = 1 .. 4 and over r of  exp(-(l(c) - l(r))^2 / 72) * sum_k min(c_k, r_k) r_k / (|c| |r|)

where N is the number of rows of the pack's test split and df the number of those whose references hold the
n-gram. Both are counted once, over the whole split, and stay fixed: so a single caption has a worth, whether
it was said on the stream or about a held-out item, and a mean over any items is a mean of those worths. A
mean over the whole split is the published metric. The scale is that of the library: 0 to 10, and papers print
it times 100.

BLEU-4 is that of all captions together (Papineni et al. 2002), closest reference length, as in pycocoevalcap.
Words are found by `words`, in place of Stanford's tokenizer, which needs Java; it differs in brackets
(dropped here, words there) and in abbreviations like "Mr." (without the dot here).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import cdc_flower.tasks.java as java  # `from cdc_flower.tasks` would import the package in a circle
from cdc_flower.tasks.task import Task, Truth, Worth

N = 4
SIGMA = 6.0
_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|m|d|re|ve|ll))\b")
_WORD = re.compile(r"(?:[a-z]\.){2,}|n't|'\w+|[$%#]|[\w&@+*/](?:[\w&@+*/]|[-'.,:](?=\w))*")


def words(text: str) -> list[str]:
    """Lower-case words without punctuation, clitics apart: "The man's hat, isn't it?" is the man 's hat is
    n't it.
    """
    return _WORD.findall(_CLITIC.sub(r" \1", text.lower().replace("’", "'")))


def ngrams(text: str) -> Counter[tuple[str, ...]]:
    """How often each sequence of 1 to 4 words occurs."""
    said = words(text)
    return Counter(tuple(said[i : i + n]) for n in range(1, N + 1) for i in range(len(said) - n + 1))


class Cider:
    """The worth of a caption by CIDEr-D, with the document frequencies of a test split.

    Args:
        truths: of the split; a row is a document.
    """

    def __init__(self, truths: Sequence[Truth]) -> None:
        counts: Counter[tuple[str, ...]] = Counter()
        for truth in truths:
            counts.update({ngram for reference in truth.answers for ngram in ngrams(reference)})
        # one that is in a single document weighs as much as one that is in none
        self._log_df = {ngram: math.log(count) for ngram, count in counts.items() if count > 1}
        self._log_n = math.log(max(1, len(truths)))

    def _vector(self, text: str) -> tuple[list[dict[tuple[str, ...], float]], list[float], int]:
        """Weights by n, their norms by n, and the length."""
        by_n: list[dict[tuple[str, ...], float]] = [{} for _ in range(N)]
        for ngram, count in ngrams(text).items():
            by_n[len(ngram) - 1][ngram] = count * (self._log_n - self._log_df.get(ngram, 0.0))
        norms = [math.sqrt(sum(w * w for w in part.values())) for part in by_n]
        return by_n, norms, max(0, len(words(text)) - 1)

    def __call__(self, said: str, truth: Truth) -> float:
        """0 to 10."""
        own, own_norms, own_length = self._vector(said)
        total = 0.0
        for reference in truth.answers:
            other, norms, length = self._vector(reference)
            near = math.exp(-((own_length - length) ** 2) / (2 * SIGMA**2))
            for a, b, norm_a, norm_b in zip(own, other, own_norms, norms, strict=True):
                dot = sum(min(w, b.get(ngram, 0.0)) * b.get(ngram, 0.0) for ngram, w in a.items())
                total += near * (dot / (norm_a * norm_b) if norm_a and norm_b else dot)
        return 10.0 * total / (N * len(truth.answers))


def bleu4(said: Sequence[str], truths: Sequence[Truth]) -> float:
    """BLEU-4 of all captions together, 0 to 1."""
    right, given = [0] * N, [0] * N
    length = wanted = 0
    for text, truth in zip(said, truths, strict=True):
        own = ngrams(text)
        most: Counter[tuple[str, ...]] = Counter()
        for reference in truth.answers:
            most |= ngrams(reference)
        for ngram, count in own.items():
            right[len(ngram) - 1] += min(count, most[ngram])
            given[len(ngram) - 1] += count
        spoken = len(words(text))
        length += spoken
        wanted += min((abs(n - spoken), n) for n in (len(words(r)) for r in truth.answers))[1]
    if not all(right):
        return 0.0
    short = math.exp(1 - wanted / length) if length < wanted else 1.0
    return short * math.exp(sum(math.log(r / g) for r, g in zip(right, given, strict=True)) / N)


def fit(truths: Sequence[Truth]) -> Worth:
    """CIDEr with this split's document frequencies."""
    return Cider(truths)


def _spaced(said: Sequence[str], truths: Sequence[Truth]) -> tuple[list[str], list[list[str]]]:
    """Captions and references in words with single spaces between them, for other people's scorers."""
    return (
        [" ".join(words(text)) for text in said],
        [[" ".join(words(text)) for text in truth.answers] for truth in truths],
    )


def meteor(said: Sequence[str], truths: Sequence[Truth]) -> float | None:
    """METEOR 1.5; None without Java and pycocoevalcap."""
    return java.meteor(*_spaced(said, truths))


def spice(said: Sequence[str], truths: Sequence[Truth]) -> float | None:
    """SPICE; None without Java, pycocoevalcap and the parser's models."""
    return java.spice(*_spaced(said, truths))


CAPTIONS = Task(
    fit,
    unit="CIDEr",
    needs=("answers",),
    beside={"BLEU-4": bleu4, "METEOR": meteor, "SPICE": spice},
    by="domain",
    ask="Provide a one-sentence caption for the provided image.",
    cut=0.5,
)
