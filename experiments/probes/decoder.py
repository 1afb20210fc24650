"""From vision tokens back to pixels: the attacker's network, and how like the picture is what it draws.

A small convolutional decoder over the grid of tokens, a patch of pixels for each, trained on the squared
error. It is told which tokens came. It is a lower bound of what an attacker can do: a generative prior
(diffusion, arXiv 2507.22828) draws what this one leaves blurred.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.probes.sent import Received

HIDDEN, BATCH, LR = 64, 32, 3e-3
_WINDOW = 7  # pixels, of SSIM


class Decoder(nn.Module):
    """(B, N, D) tokens and (B, N) which are there -> (B, 3, H, W) in 0..1."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, side: int, patch: int, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.begin = nn.Conv2d(width + 1, HIDDEN, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(8, HIDDEN),
                nn.GELU(),
                nn.Conv2d(HIDDEN, HIDDEN, 3, padding=1),
                nn.GELU(),
                nn.Conv2d(HIDDEN, HIDDEN, 1),
            )
            for _ in range(2)
        )
        self.end = nn.Conv2d(HIDDEN, 3 * patch * patch, 1)
        self.pixels = nn.PixelShuffle(patch)

    def forward(self, tokens: Tensor, there: Tensor) -> Tensor:
        """See the class."""
        known = there[..., None].float()
        x = torch.cat([(tokens - self.mean) / self.deviation * known, known], -1)
        x = self.begin(x.transpose(1, 2).unflatten(2, (self.side, self.side)))
        for block in self.blocks:
            x = x + block(x)
        return self.pixels(self.end(F.gelu(x))).sigmoid()


def fresh(got: Received, side: int, patch: int, seed: int) -> Decoder:
    """A decoder that was not trained, scaled to what came."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Decoder(got.tokens.shape[-1], side, patch, *_scale(got))


def _scale(got: Received) -> tuple[Tensor, Tensor]:
    came = torch.from_numpy(got.tokens[got.there])
    return came.mean(0), came.std(0).clamp_min(1e-6)


def train(decoder: Decoder, got: Received, pixels: np.ndarray, steps: int, seed: int) -> dict[str, Tensor]:
    """Learn to draw pictures (B, H, W, 3) uint8 from what came of them; a copy of what was learned."""
    decoder.mean, decoder.deviation = _scale(got)
    tokens, there, wanted = torch.from_numpy(got.tokens), torch.from_numpy(got.there), as_tensor(pixels)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=LR, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, total_steps=max(steps, 2), pct_start=0.1)
    chance = torch.Generator().manual_seed(seed)
    decoder.train()
    for _ in range(steps):
        some = torch.randint(len(tokens), (BATCH,), generator=chance)
        loss = F.mse_loss(decoder(tokens[some], there[some]), wanted[some])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    decoder.eval()
    return {name: value.clone() for name, value in decoder.state_dict().items()}


@torch.no_grad()
def drawn(decoder: Decoder, got: Received) -> np.ndarray:
    """What the decoder makes of what came: (B, H, W, 3) uint8."""
    tokens, there = torch.from_numpy(got.tokens), torch.from_numpy(got.there)
    made = [decoder(t, k) for t, k in zip(tokens.split(BATCH), there.split(BATCH), strict=True)]
    return (255 * torch.cat(made)).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def as_tensor(pixels: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in 0..1."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def errors(made: np.ndarray, real: np.ndarray) -> np.ndarray:
    """(B,) mean squared error of values in 0..1."""
    return (as_tensor(made) - as_tensor(real)).square().mean((1, 2, 3)).numpy()


def psnr(made: np.ndarray, real: np.ndarray) -> float:
    """Peak signal-to-noise ratio [dB], mean over pictures."""
    return float(np.mean(-10 * np.log10(np.maximum(errors(made, real), 1e-10))))


def ssim(made: np.ndarray, real: np.ndarray) -> float:
    """Structural similarity (Wang and others 2004), mean over pictures: square windows of 7 pixels, the
    unbiased variance, K1 = 0.01, K2 = 0.03, as scikit-image has them by default.
    """

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, _WINDOW, 1)

    x, y = as_tensor(made).double(), as_tensor(real).double()
    unbiased, c1, c2 = _WINDOW**2 / (_WINDOW**2 - 1), 0.01**2, 0.03**2
    mx, my = mean(x), mean(y)
    vx, vy, both = (
        unbiased * (mean(a * b) - m * k) for a, b, m, k in ((x, x, mx, mx), (y, y, my, my), (x, y, mx, my))
    )
    like = (2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(like.mean())
