"""AKD losses: what the twin is pulled towards (arXiv 2312.16279, section 3.3, and its released code).

    L = ce w CE(student, pseudo answer) + kl w tau^2 KL(teacher || student)
        + feature MSE(hidden states) + wavelet DWT(hidden states) + entropy e^(E_max - H) H

with w the teacher's confidence in its answer (or 1), H the student's own entropy, and `ce`, `kl`, `feature`,
`wavelet`, `entropy` the weights of the setting `cloud.losses`. The released code has CE, feature and wavelet,
unweighted; the KL on logits is possible where
teacher and student share a vocabulary (`possible`). CE and KL are means over the samples of a batch, the
others over their positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cdc_flower.config import ConfigError

UNRELIABLE = 0.4  # of the largest entropy there is: with more an answer says nothing (CEMA)
DB6 = (
    -0.0010773010853084796,
    0.004777257510945511,
    0.0005538422011614961,
    -0.03158203931748603,
    0.027522865530305727,
    0.09750160558732304,
    -0.12976686756726194,
    -0.22626469396543983,
    0.31525035170919763,
    0.7511339080210954,
    0.49462389039845306,
    0.11154074335010947,
)
"""Low-pass analysis filter of the Daubechies wavelet with six vanishing moments."""


def weighted_ce(logits: Tensor, answer_ids: Tensor, weight: Tensor) -> Tensor:
    """Cross entropy of the pseudo answers in nats: mean over an answer's steps, then weighted over samples.

    Args:
        logits: student, (B, A, V).
        answer_ids: (B, A) int64, padded with -100.
        weight: (B,), the teacher's confidence.
    """
    nll = F.cross_entropy(logits.transpose(1, 2), answer_ids, ignore_index=-100, reduction="none")  # (B, A)
    steps = (answer_ids != -100).sum(1).clamp_min(1)
    return (weight * nll.sum(1) / steps).mean()


def top_kl(
    logits: Tensor, top_ids: Tensor, top_logits: Tensor, mask: Tensor, weight: Tensor, tau: float
) -> Tensor:
    """tau^2 KL(teacher || student) in nats over the teacher's k largest logits, renormalised.

    The student's are not renormalised: what it gives to words outside the teacher's k counts against it.

    Args:
        logits: student, (B, A, V).
        top_ids: teacher, (B, A, k) int64.
        top_logits: teacher, (B, A, k).
        mask: (B, A) bool, answer positions.
        weight: (B,), the teacher's confidence.
        tau: temperature, > 0.
    """
    teacher = (top_logits / tau).log_softmax(-1)
    student = (logits / tau).log_softmax(-1).gather(-1, top_ids)
    kl = (teacher.exp() * (teacher - student)).sum(-1) * mask
    return tau**2 * (weight * kl.sum(1) / mask.sum(1).clamp_min(1)).mean()


def feature(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """MSE of aligned final hidden states over the positions in `mask`.

    Args:
        student: (B, S, H), mapped to the teacher's width.
        teacher: (B, S, H).
        mask: (B, S) bool.
    """
    m = mask[..., None].float()
    return ((student - teacher).square() * m).sum() / (m.sum() * student.shape[-1]).clamp_min(1)


def wavelet_l1(student: Tensor, teacher: Tensor, levels: int = 3) -> Tensor:
    """Mean absolute difference of the high-pass bands of a discrete wavelet transform along the sequence.

    As in the released code: db6, three levels; (B, S, H) in, zeros beyond the ends.
    """
    low = torch.tensor(DB6, dtype=student.dtype, device=student.device).flip(0)[None, None]
    high = low.flip(-1) * low.new_tensor([1.0, -1.0]).repeat(len(DB6) // 2)  # the quadrature mirror
    diff = (student - teacher).transpose(1, 2).flatten(0, 1)[:, None]  # (B * H, 1, S)
    loss = diff.new_zeros(())
    for _ in range(levels):
        padded = F.pad(diff, (len(DB6) - 2, len(DB6) - 1))
        loss = loss + F.conv1d(padded, high, stride=2).abs().mean()
        diff = F.conv1d(padded, low, stride=2)
    return loss


def sure_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """The student's own entropy in nats, mean over an answer's steps, then over samples, each weighted by
    e^(E_max - H) with E_max = 0.4 ln V: the surer, the more (CEMA, arXiv 2402.17316).

    Args:
        logits: student, (B, A, V).
        mask: (B, A) bool, answer positions.
    """
    logp = logits.log_softmax(-1)
    steps = -(logp.exp() * logp).sum(-1) * mask
    entropy = steps.sum(1) / mask.sum(1).clamp_min(1)
    return ((UNRELIABLE * math.log(logits.shape[-1]) - entropy.detach()).exp() * entropy).mean()


@dataclass(frozen=True)
class Seen:
    """What a loss may look at, of a batch.

    Attributes:
        logits: student, (B, A, V).
        answer_ids: (B, A) int64, padded with -100.
        top_ids, top_logits: teacher, (B, A, k).
        weight: (B,) of each sample.
        tau: temperature.
        mask: (B, S) bool, positions that are there.
        hidden: student, (B, S, H), mapped to the teacher's width; None where no loss needs the teacher's.
        teacher_hidden: (B, S, H); None likewise.
    """

    logits: Tensor
    answer_ids: Tensor
    top_ids: Tensor
    top_logits: Tensor
    weight: Tensor
    tau: float
    mask: Tensor
    hidden: Tensor | None = None
    teacher_hidden: Tensor | None = None


@dataclass(frozen=True)
class Loss:
    """One term: a scalar of a batch, and what it needs.

    Attributes:
        needs_teacher_hidden: a pass of the teacher over the student's sequence, in every step.
        needs_words: a teacher whose ids are those of the student.
        of_positions: see below.

    It is a mean over the samples of a batch whose sequences are padded to one length, or over positions that
    are there (`of_positions`): so the terms of parts of a batch add up to that of the whole.
    """

    function: Callable[[Seen], Tensor]
    needs_teacher_hidden: bool = False
    needs_words: bool = False
    of_positions: bool = False


def _feature(seen: Seen) -> Tensor:
    assert seen.hidden is not None
    assert seen.teacher_hidden is not None
    return feature(seen.hidden, seen.teacher_hidden, seen.mask)


def _wavelet(seen: Seen) -> Tensor:
    assert seen.hidden is not None
    assert seen.teacher_hidden is not None
    m = seen.mask[..., None].float()
    return wavelet_l1(seen.hidden * m, seen.teacher_hidden * m)


LOSSES: dict[str, Loss] = {
    "ce": Loss(lambda s: weighted_ce(s.logits, s.answer_ids, s.weight)),
    "kl": Loss(
        lambda s: top_kl(s.logits, s.top_ids, s.top_logits, s.answer_ids != -100, s.weight, s.tau),
        needs_words=True,
    ),
    "feature": Loss(_feature, needs_teacher_hidden=True, of_positions=True),
    "wavelet": Loss(_wavelet, needs_teacher_hidden=True),
    "entropy": Loss(lambda s: sure_entropy(s.logits, s.answer_ids != -100)),
}
"""Name in the setting `cloud.losses` -> term."""


def weights(setting: str) -> dict[str, float]:
    """Name -> weight of "ce,kl" or "ce=1,kl=0.5,feature=0.1": what is named counts, 1 where no weight is.

    Raises:
        ConfigError: an unknown name, one twice, a weight that is no positive number, or no name at all.
    """
    found: dict[str, float] = {}
    for part in filter(None, (p.strip() for p in setting.split(","))):
        name, _, number = (p.strip() for p in part.partition("="))
        if name not in LOSSES or name in found:
            raise ConfigError(
                f"setting 'cloud.losses' = {setting!r}: '{name}'; allowed: {', '.join(LOSSES)}, once"
            )
        try:
            found[name] = float(number or 1)
        except ValueError:
            found[name] = math.nan
        if not 0 < found[name] < math.inf:
            raise ConfigError(f"setting 'cloud.losses' = {setting!r}: weight '{number}'; allowed: above 0")
    if not found:
        raise ConfigError(
            f"setting 'cloud.losses' = {setting!r}; allowed: at least one of {', '.join(LOSSES)}"
        )
    return found


def needs_teacher(setting: str) -> bool:
    """Whether a step takes a pass of the teacher."""
    return any(LOSSES[name].needs_teacher_hidden for name in weights(setting))


def possible(setting: str, words: bool, alike: bool) -> tuple[dict[str, float], str]:
    """The terms that a teacher allows, with their weights, and what is said of the others, "" where all are.

    Args:
        setting: as in `weights`.
        words: the teacher's ids are those of the student.
        alike: it reads what the student reads, ids and tokens.

    Raises:
        ConfigError: a term that needs the student's own sequence, or nothing is left.
    """
    asked = weights(setting)
    odd = [name for name in asked if LOSSES[name].needs_teacher_hidden and not alike]
    left = {name: w for name, w in asked.items() if words or not LOSSES[name].needs_words}
    if odd or not left:
        why = "tokens or ids" if odd else "ids"
        able = [k for k, v in LOSSES.items() if not v.needs_teacher_hidden and (words or not v.needs_words)]
        raise ConfigError(
            f"setting 'cloud.losses' = {setting!r}: '{(odd or [*asked])[0]}' needs a teacher with the "
            f"student's {why}, this one has others; allowed: {', '.join(able)}"
        )
    off = ", ".join(name for name in asked if name not in left)
    return left, off and (
        "teacher and student have different tokenizers: the student learns from the text of the teacher's "
        f"answers, by {', '.join(left)} without {off}"
    )
