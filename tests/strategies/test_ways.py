"""Weights whole or as changes through a codec: both learn, both refuse what a stranger makes up, and what a
budget leaves out is sent later."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cdc_flower import results
from cdc_flower.config import ConfigError, parse
from cdc_flower.downlink import update
from cdc_flower.downlink.codecs import CODECS
from cdc_flower.models.adapters import Layout
from cdc_flower.stages import DownlinkConfig
from cdc_flower.wire import keys
from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.reply import Form, Reply
from clients.coded import coded
from clients.store import Adapter
from strategies.run import run_local
from strategies.ways import LEAST, Coded, check_codec

LAYOUT = Layout(("a", "b"), ((30, 20), (400,)))
FIRST = np.round(np.random.default_rng(0).standard_normal(LAYOUT.total) * 2**20).astype(np.float32) / 2**20


@pytest.fixture
def way():
    made = Coded(FIRST, LAYOUT, "dyadic", DownlinkConfig(budget=400), 1500)
    made.begin(FIRST)
    return made


def said(frame: bytes, examples: int = 4) -> Reply:
    return Reply(
        {keys.VERSION: 0, keys.EXAMPLES: examples, "loss": 1.0},
        {keys.DIGEST: update.digest(FIRST)},
        frame=frame,
    )


def framed(change: np.ndarray, layout: bytes = LAYOUT.digest, base: int = 0) -> bytes:
    code = bytes((CODECS["fp16"].id,)) + CODECS["fp16"].encode(change, LAYOUT.sizes, 1)
    return update.chain_frame([code], base, layout, update.digest(update.add(FIRST, code, LAYOUT.sizes)))


def test_a_change_that_training_can_make_is_read_and_one_that_it_cannot_is_refused(way):
    change = np.full(LAYOUT.total, 0.25, np.float32)
    np.testing.assert_allclose(way.read(0, said(framed(change)), 0.25), FIRST + change, atol=1e-6)
    with pytest.raises(FrameError, match="1000 weights changed by more than 0.1, the most of its training"):
        way.read(0, said(framed(change)), 0.1)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (b"", None),
        (b"junk", "."),
        (framed(np.zeros(LAYOUT.total, np.float32), bytes(8)), "layout"),
        (framed(np.zeros(LAYOUT.total, np.float32), base=3), "version"),
        (update.snapshot_frame(FIRST + 9, 1, LAYOUT.digest), "changed by more than"),
        (update.snapshot_frame(FIRST, 7, LAYOUT.digest), "leads to version 7; allowed: 1"),
        (framed(np.zeros(LAYOUT.total, np.float32))[:-1], "."),
    ],
)
def test_a_hostile_frame_costs_its_device_alone(way, frame, says):
    if says is None:
        assert way.read(0, said(frame), 1.0) is None
        return
    with pytest.raises(FrameError, match=says):
        way.read(0, said(frame), 1.0)


def test_a_reply_has_at_most_the_uplink_budget(way):
    form = way.form(Form())
    assert form.array.most == form.max_bytes == 1500


def test_what_a_device_leaves_out_is_in_its_next_change():
    rng, most = np.random.default_rng(1), 1.0
    adapter, rest = Adapter.of(FIRST, 0), np.zeros(LAYOUT.total, np.float32)
    total, sent = np.zeros(LAYOUT.total, np.float32), np.zeros(LAYOUT.total, np.float32)
    for _ in range(12):
        change = rng.standard_normal(LAYOUT.total).astype(np.float32) ** 3 / 16
        frame, rest = coded(change + rest, adapter, LAYOUT, most, 300)
        assert len(frame) <= 300
        flat, version = update.apply(frame, FIRST, 0, LAYOUT.digest, LAYOUT.sizes, 300)
        assert version == 1
        assert np.abs(flat - FIRST).max() <= 2 * most
        total, sent = total + change, sent + (flat - FIRST)
    np.testing.assert_allclose(sent + rest, total, atol=1e-4)
    assert np.linalg.norm(rest) < 0.7 * np.linalg.norm(total)


def test_what_the_server_leaves_out_is_in_its_next_update(way):
    goal = FIRST + np.random.default_rng(2).standard_normal(LAYOUT.total).astype(np.float32)
    far = []
    for _ in range(8):
        way.end(goal)
        far.append(float(np.linalg.norm(goal - way.held(goal))))
    assert far[-1] < 0.05 * np.linalg.norm(goal - FIRST)
    assert way.lineage.mirror.newest == 8


def test_a_run_through_the_codec_stays_within_both_budgets_and_learns(run_settings):
    made = run_settings(
        method="fedavg_full",
        fedavg_codec="dyadic",
        uplink_budget=60_000,
        downlink_budget=9000,
        rounds=2,
        cohort=0.7,
    )
    found = results.read(run_local(parse(made), roundtrip=True))
    assert set(found.devices["status"]) == {"ok"}
    assert 20_000 < found.devices["uplink_bytes"].max() <= 60_000  # float16: 330,000
    assert (found.devices.query("round == 1")["downlink_bytes"] < 500).all()  # all hold version 0
    assert found.devices["downlink_bytes"].max() < 2 * 9000 + 500
    assert found.metrics.query("name == 'taught_devices'")["value"].min() == 2
    assert list((Path(made["run.out-dir"]) / "adapters").iterdir())


def test_settings_that_a_codec_cannot_work_with_are_refused():
    for settings, says in (
        ({"uplink.budget": LEAST - 1}, f"'uplink.budget' = {LEAST - 1} .*allowed: 0 .* at least {LEAST}"),
        ({"run.poison-devices": "0"}, "'run.poison-devices' = '0' with 'fedavg.codec' = 'dyadic'"),
    ):
        check_codec(parse(settings), "fp16")
        with pytest.raises(ConfigError, match=says):
            check_codec(parse(settings), "dyadic")
