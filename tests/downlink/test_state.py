"""A model of the adapter line: a cloud, three devices, and a network that loses, repeats, reorders, replays,
delays, cuts and changes both the frames and the devices' reports; either side may crash.

Claims after every step: the mirror holds its history bit for bit and no more of it than it was told; a device
whose version and digest the mirror knows holds the mirror's adapter of that version; one honest exchange
brings any device of this model to the newest, and one of another model after it said that it could not.
Claims at every delivery: a frame is refused with FrameError and nothing changes, or the device has the
adapter that the frame was made for. Broken mirrors, at the end, show that the model can find one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cdc_flower.downlink import update
from cdc_flower.downlink.codecs import CODECS
from cdc_flower.downlink.versions import Jumps, Mirror
from cdc_flower.wire.frame import FrameError, Kind, pack, unpack


@dataclass(frozen=True)
class Layout:
    sizes: tuple[int, ...] = (30, 0, 10)
    digest: bytes = b"layout01"


LAYOUT = Layout()
P = sum(LAYOUT.sizes)
BUDGET, HISTORY, CAP = 120, 3, 10**4
INITIAL = np.round(np.random.default_rng(0).standard_normal(P) * 2**20).astype(np.float32) / 2**20
DEVICES, JUMPS = st.integers(0, 2), st.sampled_from(get_args(Jumps))
DAMAGE = st.none() | st.none() | st.tuples(st.integers(0, 10**4), st.integers(0, 255))


@dataclass(frozen=True)
class Device:
    """What a device has."""

    flat: np.ndarray
    version: int
    shipped: np.ndarray = field(default_factory=lambda: INITIAL)  # its version 0

    def report(self) -> tuple[int, bytes]:
        return self.version, update.digest(self.flat)

    def same(self, other: "Device") -> bool:
        return self.version == other.version and self.flat.tobytes() == other.flat.tobytes()


@dataclass(frozen=True, eq=False)
class Flight:
    """A frame on its way, and what it was made of and for."""

    device: int
    frame: bytes
    start: tuple[int, bytes | None]
    goal: Device
    snapshot: bytes


def _apply(frame: bytes, device: Device) -> Device:
    start = (device.shipped, 0) if update.stands_alone(frame, CAP) else (device.flat, device.version)
    return Device(*update.apply(frame, *start, LAYOUT.digest, LAYOUT.sizes, CAP), device.shipped)


def _damaged(frame: bytes, damage: tuple[int, int] | None) -> bytes:
    """The frame as it is, cut short (a flip of 0), or with flipped bits and a correct checksum."""
    if damage is None:
        return frame
    place, flip = damage
    if not flip:
        return frame[: place % len(frame)]
    sections = [bytearray(section) for section in unpack(frame, Kind.UPDATE, CAP)]
    chosen = sections[place % len(sections)]
    if chosen:
        chosen[place // len(sections) % len(chosen)] ^= flip
    return pack(Kind.UPDATE, *map(bytes, sections))


class Line(RuleBasedStateMachine):
    """`kind` is the mirror under test."""

    kind: Callable[..., Mirror] = Mirror

    def __init__(self):
        super().__init__()
        self.devices = [Device(INITIAL, 0)] * 3
        self.reports = [[device.report()] for device in self.devices]  # all that each has ever said
        self.known: dict[int, tuple[int, bytes]] = {}  # what arrived of it
        self.air: list[Flight] = []

    def become(self, device: int, what: Device) -> None:
        self.devices[device] = what
        self.reports[device].append(what.report())

    @initialize(codec=st.sampled_from(list(CODECS)))
    def begin(self, codec):
        self.arguments = (LAYOUT, codec, BUDGET, HISTORY)
        self.cloud = self.kind(INITIAL, *self.arguments)
        self.history = {0: INITIAL.tobytes()}  # version -> adapter, of the line that the cloud is on
        self.saved = self.cloud.state(), dict(self.history)

    @rule(seed=st.integers(0, 2**16), scale=st.sampled_from([0.0, 0.01, 1.0]), then=st.sets(DEVICES))
    def cloud_learns_and_sends(self, seed, scale, then):
        step = np.random.default_rng(seed).standard_normal(P).astype(np.float32) * np.float32(scale)
        self.cloud.advance(self.cloud.adapter(self.cloud.newest) + step)
        self.history[self.cloud.newest] = self.cloud.adapter(self.cloud.newest).tobytes()
        for device in sorted(then):
            self.cloud_sends(device)

    @rule(device=DEVICES, jumps=JUMPS)
    def cloud_sends(self, device, jumps="all"):
        said = self.known.get(device, (0, None))
        frame = self.cloud.frame_for(*said, jumps)
        if frame is not None:
            goal = Device(self.cloud.adapter(self.cloud.newest), self.cloud.newest)
            self.air.append(Flight(device, frame, said, goal, self.cloud.frame_for(-1, None, "none")))

    @rule(device=DEVICES, lag=st.integers(0, 3))
    def a_report_arrives(self, device, lag):
        self.known[device] = self.reports[device][-1 - min(lag, len(self.reports[device]) - 1)]

    @precondition(lambda self: self.air)
    @rule(place=st.integers(0, 5), again=st.booleans(), damage=DAMAGE)
    def a_frame_arrives(self, place, again, damage):
        flight = self.air[-1 - place % len(self.air)]
        if not again:
            self.air.remove(flight)
        frame, before = _damaged(flight.frame, damage), self.devices[flight.device]
        try:
            after = _apply(frame, before)
        except FrameError:
            assert (
                frame != flight.frame
                or before.report() != flight.start
                or (before.shipped is not INITIAL and frame != flight.snapshot)
            )
            return
        forged = after.same(before) or after.flat.tobytes() == flight.goal.flat.tobytes()  # version alone
        assert after.same(flight.goal) or (forged and frame != flight.frame)
        self.become(flight.device, after)

    @precondition(lambda self: self.air)
    @rule(place=st.integers(0, 5))
    def a_frame_is_lost(self, place):
        self.air.pop(-1 - place % len(self.air))

    @rule()
    def cloud_saves(self):
        self.saved = self.cloud.state(), dict(self.history)

    @rule(remembers=st.booleans())
    def cloud_restarts_from_what_it_saved(self, remembers):
        state, history = self.saved
        self.cloud, self.history = self.kind(INITIAL, *self.arguments), dict(history)
        self.cloud.load(state)
        if not remembers:
            self.known.clear()

    @rule(device=DEVICES, other=st.booleans())
    def device_loses_its_disk(self, device, other):
        """It is back at the adapter it was shipped with, or at that of another model."""
        shipped = INITIAL + np.float32(1) if other else INITIAL
        self.become(device, Device(shipped, 0, shipped))

    @invariant()
    def the_mirror_holds_its_history_bit_for_bit_and_no_more_of_it(self):
        cloud = self.cloud
        assert cloud.newest == max(self.history)
        assert 0 <= cloud.newest - cloud.oldest <= HISTORY
        for version in range(cloud.oldest, cloud.newest + 1):
            assert cloud.adapter(version).tobytes() == self.history[version]
        assert len(cloud.state()["payload_sizes"]) <= HISTORY

    @invariant()
    def a_device_that_the_mirror_knows_holds_what_the_mirror_says(self):
        for device in self.devices:
            version, digest = device.report()
            if not self.cloud.oldest <= version <= self.cloud.newest:
                continue
            held = self.history[version]
            if digest == update.digest(np.frombuffer(held, np.float32)):
                assert device.flat.tobytes() == held

    @invariant()
    def one_honest_exchange_brings_any_device_to_the_newest(self):
        goal = Device(np.frombuffer(self.history[self.cloud.newest], np.float32), self.cloud.newest)
        snapshot = len(self.cloud.frame_for(-1, None, "none"))
        for device in self.devices:
            for jumps in get_args(Jumps) if device.shipped is INITIAL else ["none"]:
                frame = self.cloud.frame_for(*device.report(), jumps)
                assert (device if frame is None else _apply(frame, device)).same(goal)
                assert len(frame or b"") <= snapshot
        assert update.digest(goal.flat) == self.cloud.digest


QUICK = settings(max_examples=200, stateful_step_count=40, deadline=None)
LONG = settings(QUICK, max_examples=2000, stateful_step_count=60)


def test_devices_and_mirror_agree_whatever_happens_between_them():
    run_state_machine_as_test(Line, settings=QUICK)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_devices_and_mirror_agree_in_long_lives():
    run_state_machine_as_test(Line, settings=LONG)


class Trusting(Mirror):
    """Takes a version's number for the adapter."""

    def frame_for(self, version, digest=None, jumps="all"):
        return super().frame_for(version, None, jumps)


class OffByOne(Mirror):
    """Starts the chain of a device that lags by two one version late."""

    def _shortest(self, version, jumps):
        return super()._shortest(version + (version < self.newest - 1), jumps)


class Unchecked(Mirror):
    """Jumps by a difference in float32 that it takes for exact."""

    def _jump(self, flat, version):
        newest, layout = self.newest, self._layout
        delta = (self._newest_flat - flat).astype(np.float32)
        payload = bytes((2,)) + CODECS["fp16"].encode(delta, self._sizes, 1)
        return version != newest and update.jump_frame(payload, version, newest, layout, self.digest)


class Forgetful(Mirror):
    """Keeps a frame it made for an older newest version."""

    def advance(self, target):
        kept = dict(self._frames)
        newest = super().advance(target)
        self._frames.update(kept)
        return newest


class Hoarding(Mirror):
    """Never lets a version go."""

    def advance(self, target):
        self._history = 10**6
        return super().advance(target)


class Rounding(Mirror):
    """Keeps the oldest adapter in half precision when the window moves."""

    def advance(self, target):
        newest = super().advance(target)
        self._base = self._base.astype(np.float16).astype(np.float32)
        return newest


@pytest.mark.parametrize("kind", [Trusting, OffByOne, Unchecked, Forgetful, Hoarding, Rounding])
def test_the_model_finds_a_mirror_that_is_broken(kind):
    broken = type(f"{kind.__name__}Line", (Line,), {"kind": kind})
    found = settings(
        QUICK,
        max_examples=300,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    with pytest.raises((AssertionError, FrameError)):
        run_state_machine_as_test(broken, settings=found)
