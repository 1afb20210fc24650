"""UTS scores: which samples, and which of their tokens, the student is unsure about (after arXiv 2312.16279).

Sample scores read the student's own answer. Token scores say how much a token is worth sending, and what
finding that out takes; those that one plain pass shows are read off the pass that answers. A name with "-"
before it keeps the lowest: "-released" is the rule of the authors' code. Departures, with reasons in
docs/method.md: the released sample rule multiplies probabilities and so uploads long answers; the released
token rule applies dropout to the features themselves, which makes its variance the token's squared norm.
`mc_dropout` here drops whole tokens and sends the rest through projector and language model. `random` and
`norm` are the controls any score has to beat.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from cdc_flower.models import vlm
from cdc_flower.models.placement import device_of
from cdc_flower.wire import gate

SHARPNESS = 3.0  # of `sampled`: 0 is chance, infinity is `attention`; 2 to 4 are alike (docs/log.md)
BOLDNESS = 2.0  # of `worth`: 0 is chance, infinity takes the highest
LEAST_CHANCE = 0.05  # that the teacher answers otherwise: a gate may be wrong of a kind it never met
MC_PASSES = 4  # of `mc_dropout` without a number
MOST_PASSES = 1024

Own = Callable[[nn.Module, vlm.Text, vlm.Inputs, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class TokenScore:
    """A score of vision tokens, higher = more worth sending, and what it takes.

    Attributes:
        read: (B, N) from the pass over picture and question, each sample's from its own row alone; None where
            the score is `own`.
        own: (B, N) from passes of its own, or from none.
        draw: what a device's own chance makes of what was read; the identity where there is none.
        passes: complete passes over picture and question beyond the one that answers.
        predicted: positions that `lm_head` reads for it, for each vision token.
        sign: -1 where the lowest are kept.
    """

    read: vlm.Read | None = None
    own: Own | None = None
    draw: Callable[[np.ndarray, np.random.Generator], np.ndarray] = lambda found, rng: found
    passes: int = 0
    predicted: int = 0
    sign: float = 1.0

    def of_read(self, found: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The score (B, N) of what `read` gave."""
        return self.sign * self.draw(found, rng)

    @torch.no_grad()
    def __call__(
        self, model: nn.Module, text: vlm.Text, inputs: vlm.Inputs, rng: np.random.Generator
    ) -> np.ndarray:
        """The score (B, N) float32 of a batch, by passes of its own."""
        inputs = inputs.to(device_of(model))
        if self.read is None:
            assert self.own is not None
            return self.sign * self.own(model, text, inputs, rng)
        out = vlm.forward(model, inputs, attention=True)
        return self.of_read(_array(self.read(model, out, inputs)), rng)


@dataclass(frozen=True)
class Seen:
    """What a sample score reads of a device's round.

    Attributes:
        answers: to all B samples.
        asked: ids of each question.
        gate: what the cloud says of whom to ask; None before it has learned.
        least: the setting `uplink.least-worth`.
    """

    answers: vlm.Answers
    asked: Sequence[Sequence[int]] = ()
    gate: gate.Weights | None = None
    least: float = 0.0


SampleScore = Callable[[Seen, np.random.Generator], np.ndarray]


def mixed(seen: Seen, rng: np.random.Generator) -> np.ndarray:
    """The most uncertain and random samples in turn: chance finds where it is sure and wrong."""
    orders = -seen.answers.entropy, rng.random(len(seen.answers.ids))
    sure, drawn = (np.argsort(np.argsort(key, kind="stable")) for key in orders)
    return -np.minimum(2.0 * sure, 2.0 * drawn + 1)


def kinds(seen: Seen, rng: np.random.Generator) -> np.ndarray:
    """One sample of every question, then a second of every question that has one, in random order."""
    order, asked = rng.permutation(len(seen.asked)), Counter[tuple[int, ...]]()
    place = np.empty(len(order))
    for i, now in enumerate(order.tolist()):
        asked[tuple(seen.asked[now])] += 1
        place[now] = asked[tuple(seen.asked[now])] + i / len(order)
    return -place


def worth(seen: Seen, rng: np.random.Generator) -> np.ndarray:
    """Drawn without replacement in proportion to the gate's chance that the teacher would answer otherwise.

    A sample whose chance is below `seen.least` goes up with the share of it that it has, so that devices with
    nothing new send little and the cloud still hears of everything. Without a gate all samples are alike.
    """
    noise, luck = rng.gumbel(size=len(seen.asked)), rng.random(len(seen.asked))
    if seen.gate is None:
        return noise
    chance = chance_of(seen)
    return np.where(luck * seen.least < chance, BOLDNESS * np.log(chance) + noise, -np.inf)


def chance_of(seen: Seen) -> np.ndarray:
    """(B,) what the gate gives each sample; at least `LEAST_CHANCE`."""
    assert seen.gate is not None
    told = zip(seen.asked, seen.answers.ids, seen.answers.entropy, strict=True)
    samples = [gate.features(question, answer, float(doubt)) for question, answer, doubt in told]
    return np.maximum(gate.chance(seen.gate, samples), LEAST_CHANCE)


SAMPLE_SCORES: dict[str, SampleScore] = {
    "entropy": lambda seen, rng: seen.answers.entropy,
    "mixed": mixed,
    "worth": worth,
    "kinds": kinds,
    "margin": lambda seen, rng: 1 - seen.answers.margin,
    "released": lambda seen, rng: -seen.answers.log_prob,
    "random": lambda seen, rng: rng.random(len(seen.answers.ids)),
}
"""Name -> (B,) float64, higher = goes first, minus infinity = does not go."""
GATED = ("worth",)
"""Sample scores that read the gate; with them a frame says each sample's entropy."""


def _array(scores: Tensor) -> np.ndarray:
    return scores.float().cpu().numpy()


def attention(model: nn.Module, out: vlm.Output, inputs: vlm.Inputs) -> Tensor:
    """Attention that the question pays to a token: mean over layers, heads and the question's positions.

    The last position (the one that writes the answer) counts as much as the mean of all.
    """
    assert out.attended is not None
    return inputs.at_tokens(out.attended)


def drawn(attended: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Attention to the power `SHARPNESS`, sampled: the K highest are K draws without replacement.

    The logarithm plus Gumbel noise (Gumbel-top-k, Kool et al., arXiv 1903.06059). The tokens attended to most
    often say the same thing; draws spread over the picture as far as attention does.
    """
    return (SHARPNESS * np.log(attended + 1e-9) + rng.gumbel(size=attended.shape)).astype(np.float32)


def entropy(model: nn.Module, out: vlm.Output, inputs: vlm.Inputs) -> Tensor:
    """Entropy of the language model's own prediction at the token's place in the sequence, in nats."""
    logp = vlm.logits(model, inputs.at_tokens(out.hidden)).float().log_softmax(-1)
    return -(logp.exp() * logp).sum(-1)


@torch.no_grad()
def mc_dropout(
    model: nn.Module, text: vlm.Text, inputs: vlm.Inputs, rng: np.random.Generator, passes: int = MC_PASSES
) -> np.ndarray:
    """Variance of the answer caused by a token: tokens are dropped at random, whole, in some passes.

    Per token, the squared distance between the mean next-token distribution of the passes that have it and of
    those that miss it, from one set of passes in which each token is missing with probability 1/2.
    """
    probs, present = [], []
    for _ in range(passes):
        keep = torch.from_numpy(rng.random(tuple(inputs.positions.shape)) < 0.5).to(inputs.positions.device)
        keep &= inputs.positions >= 0
        some = replace(inputs, positions=torch.where(keep, inputs.positions, -1), answer_ids=None)
        probs.append(vlm.forward(model, some).logits[:, -1].float().softmax(-1))
        present.append(keep.float())
    p, m = torch.stack(probs), torch.stack(present)  # (S, B, V), (S, B, N)
    p = p - p.mean(0)
    with_token = torch.einsum("sbn,sbv->bnv", m, p) / m.sum(0).clamp_min(1)[..., None]
    without = torch.einsum("sbn,sbv->bnv", 1 - m, p) / (1 - m).sum(0).clamp_min(1)[..., None]
    return _array((with_token - without).square().sum(-1))


def norm(model: nn.Module, text: vlm.Text, inputs: vlm.Inputs, rng: np.random.Generator) -> np.ndarray:
    """Control: the token's squared norm over D."""
    return _array(inputs.tokens.square().mean(-1))


def random(model: nn.Module, text: vlm.Text, inputs: vlm.Inputs, rng: np.random.Generator) -> np.ndarray:
    """Control: chance."""
    return rng.random(tuple(inputs.positions.shape)).astype(np.float32)


def released(model: nn.Module, text: vlm.Text, inputs: vlm.Inputs, rng: np.random.Generator) -> np.ndarray:
    """The authors' released rule: variance over ten dropout masks (p = 1/2) of the features, mean over D."""
    return dropped(inputs.tokens.cpu().numpy(), rng)


def dropped(f: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """That variance (..., N) of features (..., N, D)."""
    masks = rng.random((10, *f.shape), dtype=np.float32) < 0.5
    return (masks * f[None] * 2).var(0, ddof=1).mean(-1)


TOKEN_SCORES: dict[str, TokenScore] = {
    "attention": TokenScore(attention),
    "sampled": TokenScore(attention, draw=drawn),
    "entropy": TokenScore(entropy, predicted=1),
    "mc_dropout": TokenScore(own=mc_dropout, passes=MC_PASSES),
    "norm": TokenScore(own=norm),
    "random": TokenScore(own=random),
    "released": TokenScore(own=released),
}
"""Name -> score."""


def token_score(name: str) -> TokenScore:
    """The score of a key of `TOKEN_SCORES`; with "-" before it, the one that keeps the lowest.

    `mc_dropout=32` is `mc_dropout` with 32 passes.

    Raises:
        KeyError: there is no such score.
    """
    key, _, number = name.removeprefix("-").partition("=")
    score = TOKEN_SCORES[key]
    if "=" in name:
        if key != "mc_dropout" or not number.isdecimal() or not 2 <= int(number) <= MOST_PASSES:
            raise KeyError(name)
        score = replace(score, own=partial(mc_dropout, passes=int(number)), passes=int(number))
    return replace(score, sign=-1.0) if name.startswith("-") else score
