"""What a cloud makes of what devices sent, for methods that generate parameters: from kept tokens to features
of whole clips, the users of A as devices would show them, and the hypernetwork trained on those.

The same functions read A and devices: tokens of A go over the wire, too, so that the hypernetwork learns from
what it will get, with what anchors leave out and what the quantiser does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass as checked

from cdc_flower.cloud import adr, fda_training, trained
from cdc_flower.cloud.episodes import Student, User
from cdc_flower.cloud.fda import Adaptor, Seen, clip_features
from cdc_flower.cloud.source import SourceItem, all_of_a
from cdc_flower.config import ConfigError, flat
from cdc_flower.data.features import cache_folder
from cdc_flower.draws import generator
from cdc_flower.models import adapters
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import twin_model
from cdc_flower.setting import STRICT, setting
from cdc_flower.uplink import anchors
from cdc_flower.uplink.sample import Sample
from cdc_flower.wire.frame import FrameError
from strategies.method import Setup
from strategies.reasoned import arrives, reasoner_of

MEASURED = ("data.items", "data.items-per-domain", "data.tested")  # say which held-out items count alone
VERSION = 1  # of what is trained and how: a state of another version is not used
Tokens = tuple[NDArray[np.integer], NDArray[np.floating]]
"""Positions (k,) and tokens (k, D) of a sample; none where only its question came."""


@checked(frozen=True, config=STRICT)
class MmpgSettings:
    """Anchor frames up, a generated adapter down."""

    generate: Literal["basis", "scales", "head"] = setting(
        "head",
        "part of the adapter: outer LoRA factors and vectors, vectors alone, the head's layer",
        "cloud",
    )
    anchors: Literal["uniform", "motion", "farthest", "random"] = setting(
        "uniform", "which frames of a clip go up"
    )
    frames: int = setting(1, "anchor frames of a clip", ge=1, le=64)
    clips: int = setting(4, "clips of a round of which anchor frames go up", ge=0, le=1024)
    reconstruct: Literal["learned", "hold", "linear", "mean", "none"] = setting(
        "linear", "how the other frames' features are made of the anchors", "cloud"
    )
    summary: Literal["own", "shuffled", "constant"] = setting(
        "own", "whose data an adapter is made of; controls: another device's, nobody's (one for all)", "cloud"
    )
    steps: int = setting(4000, "of the hypernetwork's training, done once and kept", "cloud", ge=0, le=10**6)


def frame_count(shared: Shared) -> int:
    """Frames of a sample: 1 of a picture."""
    return shared.frames or 1


@dataclass(frozen=True, eq=False)
class Reader:
    """From kept tokens to features of whole clips.

    Attributes:
        frames: F of a clip.
        width: D of a token.
        how: `mmpg.reconstruct`.
        reasoner: for "learned".
    """

    frames: int
    width: int
    how: str
    reasoner: adr.Reasoner | None = None

    @property
    def size(self) -> int:
        """Features of a clip."""
        return 3 * self.width

    def features(self, samples: Sequence[Tokens], grids: Sequence[tuple[int, int, int]]) -> NDArray[Any]:
        """(m, size) float32; a row of NaN where no token came.

        Raises:
            FrameError: tokens that are not whole frames.
        """
        found = np.full((len(samples), self.size), np.nan, np.float32)
        for i, ((positions, tokens), grid) in enumerate(zip(samples, grids, strict=True)):
            if len(positions):
                found[i] = clip_features(*self._read(positions, tokens, grid[0] // self.frames))
        return found

    def anchored(self, sample: Sample) -> bool:
        """Whether tokens came of a sample, all of them of some frames."""
        try:
            return len(adr.anchor_frames(sample.positions, sample.grid[0] // self.frames)) > 0
        except ValueError:
            return False

    def whole(self, positions: NDArray[np.integer], tokens: NDArray[Any], n: int) -> NDArray[np.float32]:
        """Tokens (F, n, D) of all frames, or with "none" (K, n, D) of those that came.

        Raises:
            FrameError: tokens that are not whole frames.
        """
        return self._read(positions, tokens, n)[0]

    @torch.no_grad()
    def _read(
        self, positions: NDArray[np.integer], tokens: NDArray[Any], n: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """All frames, and how far each is known, where the reasoner says that."""
        try:
            at = adr.anchor_frames(positions, n)
        except ValueError as err:
            raise FrameError(f"anchor frames: {err}") from None
        came = torch.from_numpy(np.asarray(tokens, np.float32)).view(1, len(at), n, -1)
        where = torch.from_numpy(at)[None]
        if self.reasoner is None:
            return adr.reconstruct(self.how, came, where, self.frames)[0].numpy(), None
        found, log_variance = self.reasoner(came, where)
        return found[0].numpy(), adr.trust(self.reasoner, log_variance)[0].numpy()


def reader_of(setup: Setup, own: MmpgSettings) -> Reader:
    """The reader of a run; a reasoner that it needs is trained now or comes from the cache."""
    shared, learned = setup.shared, own.reconstruct == adr.LEARNED
    reasoner = reasoner_of(setup.config, shared, setup.world, setup.tell) if learned else None
    return Reader(frame_count(shared), shared.width, own.reconstruct, reasoner)


def users_of(setup: Setup, own: MmpgSettings, items: Sequence[SourceItem], reader: Reader) -> list[User]:
    """The users of A, with what the cloud would know of each if it were a device: sorted by name."""
    shared = setup.shared
    pictures = {id(item.sample.tokens): item.sample for item in items}
    rng, read = generator(0, "anchors of A"), arrives(setup.config, shared)
    n, came = shared.n_tokens // reader.frames, dict[int, NDArray[np.float32]]()
    for name, sample in pictures.items():
        tokens = np.asarray(sample.tokens, np.float32)
        frames = anchors.choose(own.anchors, tokens.reshape(reader.frames, n, -1), own.frames, rng)
        at = anchors.positions(frames, n)
        came[name] = reader.features([(at, read(tokens[at]))], [sample.grid])[0]
    by_user: dict[str, list[SourceItem]] = {}
    for item in items:
        by_user.setdefault(item.user, []).append(item)
    return [
        User(
            name,
            Seen(
                np.stack([came[id(item.sample.tokens)] for item in mine]),
                [item.sample.question_ids for item in mine],
            ),
            [item.sample for item in mine],
            [shared.text.answer_ids(item.answer) for item in mine],
        )
        for name, mine in sorted(by_user.items())
    ]


def decides(setup: Setup, own: MmpgSettings) -> dict[str, Any]:
    """All settings and digests that a trained hypernetwork depends on. The run's seed is one of them: what is
    concluded from several seeds holds for several trainings.
    """
    config, pair, seed = setup.config, setup.config.pair, setup.config.run.seed
    given = {
        key: value
        for key, value in flat(config).items()
        if key.startswith(("data.", "drift.axes")) and key not in MEASURED
    }
    return {
        **given,
        "own": replace(own, clips=0, summary="constant" if own.summary == "constant" else "own"),
        "version": VERSION,
        **({"frames": "as known"} if own.reconstruct == adr.LEARNED else {}),
        **({"kept": "most right"} if own.summary == "constant" else {}),
        **({"seed": seed} if seed else {}),
        "student": setup.shared.digest,
        "adapter": (pair.compression, pair.adapter, pair.lora_rank),
        "wire": (config.uplink.token_bits, config.uplink.transform),
        "pack": setup.world.pack.digest,
    }


def adaptor_of(
    setup: Setup, own: MmpgSettings, reader: Reader, layout: adapters.Layout, initial: NDArray[np.float32]
) -> Adaptor:
    """The hypernetwork of a run: from the cache, or trained on A and kept there.

    Raises:
        ConfigError: the adapter has nothing that is to be generated, or A has no two users.
        DiskError: the cache cannot be written.
    """
    config, shared, seed = setup.config, setup.shared, setup.config.run.seed
    made = Adaptor(layout, initial, own.generate, shared.vocab, reader.size, own.summary == "constant", seed)
    folder = cache_folder(config.pair.token_cache) / "hypernetworks"
    path = folder / f"{fda_training.digest(decides(setup, own))[:24]}.safetensors"

    def train() -> Adaptor:
        one = replace(config, run=replace(config.run, seed=0))  # the order of A is the same for all seeds
        users = users_of(setup, own, all_of_a(one, shared, setup.world), reader)
        if len(users) < 2:
            raise ConfigError(
                f"setting 'data.pack' = '{config.data.pack}': A has {len(users)} users, and the hypernetwork "
                "learns from one to the next; allowed: a pack whose column 'user' has several in A"
            )
        student = Student(shared, twin_model(shared, config.pair), made.at.numpy())
        fda_training.train(made, student, users, own.steps, seed, setup.tell)
        return made

    return trained.kept(path, made, train)


def check_generated(setup: Setup, own: MmpgSettings) -> None:
    """Refuse settings with which nothing can be generated.

    Raises:
        ConfigError: names the setting and what is allowed.
    """
    config, shared = setup.config, setup.shared
    frames = frame_count(shared)
    if config.uplink.unit != "tokens":
        raise ConfigError(
            f"setting 'uplink.unit' = '{config.uplink.unit}': anchor frames go up as tokens; allowed: tokens"
        )
    if own.frames > frames:
        raise ConfigError(
            f"setting 'mmpg.frames' = {own.frames}: a sample has {frames} frames; allowed: 1 to {frames}"
        )
    if own.reconstruct == adr.LEARNED and frames < 2:
        raise ConfigError(
            f"setting 'mmpg.reconstruct' = 'learned': clips of pair '{shared.name}' have one frame, of which "
            "there is nothing to reconstruct; allowed: hold, linear, mean, none"
        )
    if shared.text.grid is None:
        raise ConfigError(
            f"pair '{shared.name}': the tokens of its pictures are not always as many; allowed for methods "
            "that generate parameters: a family whose pictures have one grid"
        )
