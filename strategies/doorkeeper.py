"""Who looks at every sample before a method does, because some devices lie (`cloud.doorkeeper`).

A method that is sent tokens learns from whatever has the form of a batch. Here a sample is dropped that

- is unlike everything that the picture encoder makes of A, the cloud's own pictures (`Known`): noise, tokens
  far too large, tokens that were searched for;
- was there before, from the same device or another one;
- is beyond what one device may give: `cloud.influence` times the median, of a round and of all rounds.

A device of whose samples many are strange is listened to less, and for some rounds not at all, which one line
says. Strange means unlike A, so what drifts must still look to the encoder like something A has: new shapes
do, a camera in the dark may not. Nothing is learnt of what is dropped, and the ledger counts what was taken.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from logging import WARNING
from typing import Any

import numpy as np
from flwr.supercore import log
from numpy.typing import NDArray

from cdc_flower.cloud.replay import CloudSample
from cdc_flower.cloud.source import source_tokens
from cdc_flower.config import Config
from cdc_flower.data.world import World
from cdc_flower.draws import generator
from cdc_flower.models.shared import Shared
from cdc_flower.uplink import token_batch
from cdc_flower.uplink.noise import noised
from cdc_flower.uplink.sample import Batch, Sample
from strategies.answers import Answer, Taken
from strategies.received import Received

REFERENCE, HELD = 8192, 32768  # tokens of A: that others are compared with, and that say how far is far
PICTURES = 64, 1000  # of A whose tokens are held, at least and at most
FARTHER = 1.15, 1.25  # than any held picture of A: the mean over a sample's tokens, and its farthest token
BLOCK = 512  # tokens compared at once
SEEN = 2**16  # samples whose digest is kept
DIGEST = 8  # bytes
TRUSTED, HEARD = 0.9, 0.5  # trust above which all of a device is taken, and below which nothing is
REST = 8  # rounds in which a device is not listened to
AFTERWARDS = 0.7  # trust after them
DROPPED = ("strange", "twice", "beyond", "unheard")


@dataclass(frozen=True, eq=False)
class Known:
    """What the picture encoder makes of A.

    Attributes:
        rows: (M, D) float32, tokens as they come over the wire.
        mean, one: how far from the nearest row the tokens of a sample may be in the mean, and one of them.
    """

    rows: NDArray[np.float32]
    mean: float
    one: float

    @classmethod
    def of(cls, rows: NDArray[np.float32], held: Sequence[NDArray[np.float32]]) -> Known:
        """From tokens of some pictures of A and those of others, picture by picture."""
        far = apart(held, rows)
        most = max(float(d.mean()) for d in far), max(float(d.max()) for d in far)
        return cls(rows, FARTHER[0] * most[0], FARTHER[1] * most[1])

    def strange(self, samples: Sequence[NDArray[np.floating]]) -> set[int]:
        """Places of samples, each of tokens (K, D), that are further from A than any of A is."""
        some = {i: tokens for i, tokens in enumerate(samples) if len(tokens)}
        far = zip(some, apart([*some.values()], self.rows), strict=True)
        return {i for i, d in far if not (d.mean() <= self.mean and d.max() <= self.one)}


def apart(samples: Sequence[NDArray[np.floating]], rows: NDArray[np.float32]) -> list[NDArray[np.float64]]:
    """How far each token of samples, each (K, D), is from the nearest row (M, D)."""
    wide = rows.astype(np.float64)
    lengths, tokens = np.square(wide).sum(1), np.concatenate([rows[:0], *samples])
    far = np.zeros(len(tokens))
    for start in range(0, len(tokens), BLOCK):
        some = tokens[start : start + BLOCK].astype(np.float64)
        nearest = (lengths - 2 * (some @ wide.T)).min(1)
        far[start : start + BLOCK] = np.sqrt(np.maximum(nearest + np.square(some).sum(1), 0))
    return np.split(far, np.cumsum([len(one) for one in samples])[:-1]) if samples else []


def known(config: Config, shared: Shared, world: World) -> Known | None:
    """A's tokens in the coding of the run's uplink. None, with a line, where A has too few pictures."""
    up, pictures = config.uplink, source_tokens(config, shared, world)
    rng = generator(config.run.seed, "doorkeeper")
    turn = shared.transform_for(up)

    def sent(one: NDArray[np.float16]) -> NDArray[np.float32]:
        spots = np.sort(rng.permutation(len(one))[: up.tokens_kept or len(one)])
        kept = np.asarray(one[spots], np.float32)
        kept = noised(kept, up.clip, up.noise, rng, None if turn is None else turn.mean)
        sample = Sample(0, (len(one), 1, len(one)), spots.astype(np.uint16), [], [], 0.0, kept)
        frame = token_batch.encode(Batch(0, 0, 0, (sample,)), shared.width, up.token_bits, turn)
        return (
            token_batch.decode(frame, lambda _: True, shared.width, 1, len(frame), transform=turn)
            .samples[0]
            .tokens
        )

    each = max(1, min(up.tokens_kept or 2**16, *map(len, pictures))) if pictures else 1
    rows, held = -(-REFERENCE // each), min(max(HELD // each, PICTURES[0]), PICTURES[1])
    order = rng.permutation(len(pictures)).tolist()
    if len(order) < 2 * PICTURES[0]:
        log(WARNING, "cloud.doorkeeper: A has %s pictures; nothing is compared with them", len(order))
        return None
    rows = min(rows, len(order) // 2)
    first, second = order[:rows], order[rows : rows + held]
    return Known.of(
        np.concatenate([sent(pictures[i]) for i in first])[:REFERENCE], [sent(pictures[i]) for i in second]
    )


def digest(sample: CloudSample) -> bytes:
    """Of what a sample shows and asks."""
    made = hashlib.blake2b(digest_size=DIGEST)
    made.update(np.asarray(sample.question_ids, "<i8").tobytes() + b"|")
    made.update(np.asarray(sample.positions, "<i8").tobytes() + np.asarray(sample.tokens, "<f2").tobytes())
    return made.digest()


@dataclass
class Doorkeeper:
    """What is remembered of devices and of what they sent.

    Attributes:
        influence: times the median, that a device may give.
        compared: A, loaded when the first sample comes; None = nothing is compared.
        metrics: samples of this round that were dropped, by reason.
    """

    influence: float
    compared: Callable[[], Known | None]
    metrics: dict[str, float] = field(default_factory=dict)
    _seen: dict[bytes, None] = field(default_factory=dict)  # digests, the oldest first
    _given: dict[int, int] = field(default_factory=dict)  # samples taken of a device; the median at first
    _trust: dict[int, float] = field(default_factory=dict)
    _until: dict[int, int] = field(default_factory=dict)  # the first round in which it is listened to again
    _known: list[Known | None] = field(default_factory=list)

    def admitted(self, round: int, came: Mapping[int, Answer[Any]]) -> dict[int, Answer[Any]]:
        """What a method gets of what came in a round, in the order of the devices; other values than tokens
        as they are.
        """
        self.metrics = {f"dropped_{why}": 0.0 for why in DROPPED}
        values = {d: read.taken.value for d, read in came.items() if read.taken is not None}
        numbers = {d: len(v.samples) for d, v in values.items() if isinstance(v, Received) and v.samples}
        if not numbers:
            return dict(came)
        usual = float(np.median([*numbers.values()]))
        so_far = float(np.median([*self._given.values()])) if self._given else 0.0
        found = dict(came)
        for device in sorted(numbers):
            given = self._given.setdefault(device, int(so_far))  # who comes later is no reason to wait for it
            most = min(self.influence * usual, self.influence * (so_far + usual) - given)
            taken = self._some(round, device, values[device], max(0, int(most)))
            found[device] = replace(came[device], taken=taken)
        return found

    def _some(self, round: int, device: int, value: Received, most: int) -> Taken[Received]:
        samples = value.samples
        places = self._judged(round, device, samples)
        self._drop("beyond", len(places) - len(places[:most]))
        places = places[:most]
        for i in places:
            self._seen[digest(samples[i])] = None
        while len(self._seen) > SEEN:
            del self._seen[next(iter(self._seen))]
        self._given[device] += len(places)
        batch = replace(value.batch, samples=tuple(value.batch.samples[i] for i in places))
        kept = tuple(samples[i] for i in places)
        return Taken(Received(batch, kept), len(kept), sum(len(s.positions) for s in kept))

    def _judged(self, round: int, device: int, samples: Sequence[CloudSample]) -> list[int]:
        """Places of the samples that are not strange and were not there before; fewer of a device that is
        trusted less.
        """
        if round < self._until.get(device, 0):
            self._drop("unheard", len(samples))
            return []
        compared, strange = self._compared(), set[int]()
        if compared is not None:
            strange = compared.strange([s.tokens for s in samples])
        self._drop("strange", len(strange))
        trust = (self._trust.get(device, 1.0) + 1 - len(strange) / len(samples)) / 2
        self._trust[device] = trust
        if trust < HEARD:
            self._rest(round, device, len(strange), len(samples))
            self._drop("unheard", len(samples) - len(strange))
            return []
        good, now = list[int](), set[bytes]()
        for i in (i for i in range(len(samples)) if i not in strange):
            name = digest(samples[i])
            if name not in self._seen and name not in now:
                good.append(i)
            now.add(name)
        self._drop("twice", len(samples) - len(strange) - len(good))
        heard = len(good) if trust >= TRUSTED else int(np.ceil(trust * len(good)))
        self._drop("unheard", len(good) - heard)
        return good[:heard]

    def _rest(self, round: int, device: int, strange: int, of: int) -> None:
        if device not in self._until:
            log(
                WARNING,
                "round %s: device %s: %s of %s samples are unlike all that the picture encoder makes of A; "
                "nothing of it is taken for %s rounds (cloud.doorkeeper)",
                *(round, device, strange, of, REST),
            )
        self._until[device], self._trust[device] = round + 1 + REST, AFTERWARDS

    def _drop(self, why: str, count: int) -> None:
        self.metrics[f"dropped_{why}"] += count

    def _compared(self) -> Known | None:
        if not self._known:
            self._known.append(self.compared())
        return self._known[0]

    def state(self) -> dict[str, Any]:
        """What is remembered; A is compared with anew."""
        devices = {
            str(d): [self._given.get(d, 0), self._trust.get(d, 1.0), self._until.get(d)]
            for d in sorted({*self._given, *self._trust, *self._until})
        }
        return {"seen": b"".join(self._seen), "devices": json.dumps(devices)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        seen, devices = bytes(state["seen"]), json.loads(state["devices"])
        self._seen = dict.fromkeys(seen[i : i + DIGEST] for i in range(0, len(seen), DIGEST))
        self._given = {int(d): given for d, (given, _, _) in devices.items()}
        self._trust = {int(d): trust for d, (_, trust, _) in devices.items()}
        self._until = {int(d): until for d, (_, _, until) in devices.items() if until is not None}


def of(config: Config, shared: Shared, world: World) -> Doorkeeper | None:
    """The doorkeeper of a run; None where `cloud.doorkeeper` is off. Pictures that come up are not compared:
    what is made of them the cloud's own encoder made.
    """
    if config.cloud.doorkeeper == "off":
        return None
    compares = config.uplink.unit == "tokens"
    return Doorkeeper(config.cloud.influence, lambda: known(config, shared, world) if compares else None)
