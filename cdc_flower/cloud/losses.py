"""AKD losses: what the twin is pulled towards (arXiv 2312.16279, section 3.3, and its released code).

    L = ce w CE(student, pseudo answer) + kl w tau^2 KL(teacher || student)
        + feature L_feat

with w the teacher's confidence in its answer (or 1) and `ce`, `kl`, `feature` the weights of the
settings. The released code has CE and feature terms only, unweighted; the KL on logits is possible because
teacher and student share a vocabulary. CE and KL are means over the samples of a batch, L_feat over their
positions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

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


def feature(student: Tensor, teacher: Tensor, mask: Tensor, wavelet: bool) -> Tensor:
    """MSE of aligned final hidden states over the positions in `mask`, plus the wavelet term if asked.

    Args:
        student: (B, S, H), mapped to the teacher's width.
        teacher: (B, S, H).
        mask: (B, S) bool.
        wavelet: adds `wavelet_l1`.
    """
    m = mask[..., None].float()
    loss = ((student - teacher).square() * m).sum() / (m.sum() * student.shape[-1]).clamp_min(1)
    return loss + wavelet_l1(student * m, teacher * m) if wavelet else loss


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
