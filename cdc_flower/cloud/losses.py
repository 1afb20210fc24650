"""AKD losses: what the twin is pulled towards (arXiv 2312.16279, section 3.3, and its released code).

    L = w CE(student, pseudo answer) + kl tau^2 KL(teacher || student) + feature L_feat + anchor mean (a - a_0)^2

with w the teacher's confidence in its answer. The released code has CE and the feature term only (hard, unweighted); the KL on
logits is possible because teacher and student share a vocabulary. All are means over the samples of a batch.
"""

from __future__ import annotations

import pywt
import torch
from torch import Tensor
from torch.nn import functional as F


def weighted_ce(logits: Tensor, answer_ids: Tensor, weight: Tensor) -> Tensor:
    """Cross entropy of the pseudo answers. logits (B, A, V), answer_ids (B, A) with -100, weight (B,). In nats."""
    nll = F.cross_entropy(logits.transpose(1, 2), answer_ids, ignore_index=-100, reduction="none")  # (B, A)
    steps = (answer_ids != -100).sum(1).clamp_min(1)
    return (weight * nll.sum(1) / steps).mean()


def top_kl(logits: Tensor, top_ids: Tensor, top_logits: Tensor, mask: Tensor, weight: Tensor, tau: float) -> Tensor:
    """tau^2 KL(teacher || student) over the teacher's k largest logits, renormalised.

    Args:
        logits: student, (B, A, V).
        top_ids, top_logits: teacher, (B, A, k).
        mask: (B, A) bool, answer positions.
        weight: (B,).
    """
    teacher = (top_logits / tau).log_softmax(-1)
    student = (logits / tau).log_softmax(-1).gather(-1, top_ids)
    kl = (teacher.exp() * (teacher - student)).sum(-1) * mask
    return tau**2 * (weight * kl.sum(1) / mask.sum(1).clamp_min(1)).mean()


def feature(student: Tensor, teacher: Tensor, mask: Tensor, wavelet: bool) -> Tensor:
    """MSE of aligned final hidden states (B, S, H) over the positions of `mask` (B, S); optionally the wavelet term."""
    m = mask[..., None].float()
    loss = ((student - teacher).square() * m).sum() / (m.sum() * student.shape[-1]).clamp_min(1)
    return loss + wavelet_l1(student * m, teacher * m) if wavelet else loss


def wavelet_l1(student: Tensor, teacher: Tensor, levels: int = 3, name: str = "db6") -> Tensor:
    """Mean absolute difference of the high-pass bands of a discrete wavelet transform along the sequence.

    As in the released code: db6, three levels; (B, S, H) in, zero padding at the ends.
    """
    bank = pywt.Wavelet(name)
    low, high = (torch.tensor(taps, dtype=student.dtype, device=student.device).flip(0)[None, None] for taps in (bank.dec_lo, bank.dec_hi))
    diff = (student - teacher).transpose(1, 2).flatten(0, 1)[:, None]  # the transform is linear: (B * H, 1, S)
    loss = diff.new_zeros(())
    for _ in range(levels):
        padded = F.pad(diff, (low.shape[-1] - 1, low.shape[-1] - 1))
        loss = loss + F.conv1d(padded, high, stride=2).abs().mean()
        diff = F.conv1d(padded, low, stride=2)
    return loss
