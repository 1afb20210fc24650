"""UTS scores: which samples, and which of their tokens, the student is unsure about (after arXiv 2312.16279).

Sample scores read the student's own answer. Token scores are pure functions `(model, text, inputs, rng,
config) -> (B, N)`, higher = more worth sending, except `released`, which is the rule of the authors' code
and is meant to be kept LOW; those that one plain pass shows are a `Reading`, which a device takes off the
pass that answers. Departures, with reasons in docs/method.md: the released sample rule multiplies
probabilities and so uploads long answers; the released token rule applies dropout to the features
themselves, which makes its variance the token's squared norm. `mc_dropout` here drops whole tokens and
sends the rest through projector and language model. `random` and `norm` are the controls any score has to
beat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from cdc_flower.models import vlm
from cdc_flower.stages import UplinkConfig

SHARPNESS = 3.0  # of `sampled`: 0 is chance, infinity is `attention`; 2 to 4 are alike (docs/log.md)


@dataclass(frozen=True)
class Scored:
    """A score of its own passes, or of none.

    Attributes:
        score: the function.
        passes: complete passes over picture and question that it takes, by the settings.
        predicted: positions that `lm_head` reads for it, for each vision token.
    """

    score: Callable[[nn.Module, vlm.Text, vlm.Inputs, np.random.Generator, UplinkConfig], np.ndarray]
    passes: Callable[[UplinkConfig], int] = lambda config: 0
    predicted: int = 0

    def __call__(
        self,
        model: nn.Module,
        text: vlm.Text,
        inputs: vlm.Inputs,
        rng: np.random.Generator,
        config: UplinkConfig,
    ) -> np.ndarray:
        """A score of every token, (B, N); see `TOKEN_SCORES`."""
        return self.score(model, text, inputs, rng, config)


SampleScore = Callable[[vlm.Answers, np.random.Generator], np.ndarray]


def mixed(answers: vlm.Answers, rng: np.random.Generator) -> np.ndarray:
    """The most uncertain and random samples in turn: chance finds where it is sure and wrong."""
    orders = -answers.entropy, rng.random(len(answers.ids))
    sure, drawn = (np.argsort(np.argsort(key, kind="stable")) for key in orders)
    return -np.minimum(2.0 * sure, 2.0 * drawn + 1)


SAMPLE_SCORES: dict[str, SampleScore] = {
    "entropy": lambda a, rng: a.entropy,
    "mixed": mixed,
    "margin": lambda a, rng: 1 - a.margin,
    "released": lambda a, rng: -a.log_prob,
    "random": lambda a, rng: rng.random(len(a.ids)),
}
"""Name -> (B,) float64, higher = more uncertain."""


def _array(scores: Tensor) -> np.ndarray:
    return scores.float().cpu().numpy()


@dataclass(frozen=True)
class Reading:
    """A score that the pass over picture and question shows, each sample's from its own row alone.

    Attributes:
        read: from the pass to (B, N).
        draw: what a device's own chance makes of it; the identity where there is none.
        predicted: positions that `lm_head` reads for it, for each vision token.
    """

    read: vlm.Read
    draw: Callable[[np.ndarray, np.random.Generator], np.ndarray] = lambda found, rng: found
    predicted: int = 0

    def passes(self, config: UplinkConfig) -> int:
        """None beyond the pass that answers."""
        return 0

    @torch.no_grad()
    def __call__(
        self,
        model: nn.Module,
        text: vlm.Text,
        inputs: vlm.Inputs,
        rng: np.random.Generator,
        config: UplinkConfig,
    ) -> np.ndarray:
        """A score of every token, (B, N); see `TOKEN_SCORES`."""
        out = vlm.forward(model, inputs, attention=True)
        return self.draw(_array(self.read(model, out, inputs)), rng)


def attention(model: nn.Module, out: vlm.Output, inputs: vlm.Inputs) -> Tensor:
    """Attention that the question pays to a token: mean over layers, heads and the question's positions.

    The last position (the one that writes the answer) counts as much as the mean of all.
    """
    assert out.attentions is not None
    first = int(inputs.question.min())  # no question begins before
    place = torch.arange(first, out.mask.shape[1], device=out.mask.device)
    rows = (out.mask[:, first:] & (place >= inputs.question[:, None])).float()
    rows = rows / rows.sum(1, keepdim=True)
    last = nn.functional.one_hot(inputs.length - 1 - first, rows.shape[1]).float()
    weight = 0.5 * rows + 0.5 * last  # (B, T)
    total = torch.zeros(out.mask.shape, device=weight.device)
    for layer in out.attentions:
        total += torch.einsum("bt,bts->bs", weight, layer.float().mean(1)[:, first:])
    return inputs.at_tokens(total / len(out.attentions))


def drawn(attended: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Attention to the power `SHARPNESS`, sampled: the K highest are K draws without replacement.

    The logarithm plus Gumbel noise (Gumbel-top-k, Kool et al., arXiv 1903.06059). The tokens attended to most
    often say the same thing; draws spread over the picture as far as attention does.
    """
    return (SHARPNESS * np.log(attended + 1e-9) + rng.gumbel(size=attended.shape)).astype(np.float32)


def entropy(model: nn.Module, out: vlm.Output, inputs: vlm.Inputs) -> Tensor:
    """Entropy of the language model's own prediction at the token's place in the sequence, in nats."""
    logits = vlm.parts(model)[2](inputs.at_tokens(out.hidden))
    logp = logits.float().log_softmax(-1)
    return -(logp.exp() * logp).sum(-1)


@torch.no_grad()
def mc_dropout(
    model: nn.Module, text: vlm.Text, inputs: vlm.Inputs, rng: np.random.Generator, config: UplinkConfig
) -> np.ndarray:
    """Variance of the answer caused by a token: tokens are dropped at random, whole, in `mc_passes` passes.

    Per token, the squared distance between the mean next-token distribution of the passes that have it and of
    those that miss it, from one set of passes in which each token is missing with probability 1/2.
    """
    probs, present = [], []
    for _ in range(config.mc_passes):
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


def norm(
    model: nn.Module, text: vlm.Text, inputs: vlm.Inputs, rng: np.random.Generator, config: UplinkConfig
) -> np.ndarray:
    """Control: the token's squared norm over D."""
    return _array(inputs.tokens.square().mean(-1))


def random(
    model: nn.Module, text: vlm.Text, inputs: vlm.Inputs, rng: np.random.Generator, config: UplinkConfig
) -> np.ndarray:
    """Control: chance."""
    return rng.random(tuple(inputs.positions.shape)).astype(np.float32)


def released(
    model: nn.Module, text: vlm.Text, inputs: vlm.Inputs, rng: np.random.Generator, config: UplinkConfig
) -> np.ndarray:
    """The authors' released rule: variance over ten dropout masks (p = 1/2) of the features, mean over D."""
    f = inputs.tokens.cpu().numpy()
    masks = rng.random((10, *f.shape), dtype=np.float32) < 0.5
    return (masks * f[None] * 2).var(0, ddof=1).mean(-1)


TOKEN_SCORES: dict[str, Reading | Scored] = {
    "attention": Reading(attention),
    "sampled": Reading(attention, drawn),
    "entropy": Reading(entropy, predicted=1),
    "mc_dropout": Scored(mc_dropout, passes=lambda config: config.mc_passes),
    "norm": Scored(norm),
    "random": Scored(random),
    "released": Scored(released),
}
"""Name -> (B, N) float32, and what that takes."""
