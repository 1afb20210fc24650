"""`mmpg_cdc`: a device has the sum of what was generated for it and what was distilled of all."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from cdc_flower import results
from cdc_flower.config import parse
from cdc_flower.downlink import update
from strategies.mmpg_cdc import MmpgCdc
from strategies.run import prepare, run_local
from tests.strategies.test_mmpg import sent
from tests.strategies.test_resumed import interrupted, outcome

WIDE = 10**6  # bytes of an update: nothing is left out


@pytest.fixture
def build(clip_settings):
    """A strategy whose hypernetwork was not trained but whose map is not zero."""

    def make(**more) -> MmpgCdc:
        made = MmpgCdc.build(prepare(parse(clip_settings(method="mmpg_cdc", **more))))
        torch.manual_seed(0)
        with torch.no_grad():
            made.adaptor.basis.normal_(std=0.1)
        return made

    return make


def generated(made: MmpgCdc, devices: int = 3) -> None:
    for device in range(devices):
        made.lately[device] = sent(made, device)
    for device in range(devices):
        made._generate(device, 1)


def test_a_device_has_its_own_generated_part_beside_what_was_distilled_of_all(build):
    made = build(**{"downlink.budget": WIDE})
    rng = np.random.default_rng(0)
    made.distilled = made.base + rng.normal(0, 0.1, made.base.shape).astype(np.float32)
    made.rounds = 1
    generated(made)
    at = made.adaptor.at.numpy()
    rest = np.setdiff1d(np.arange(len(made.base)), at)
    worn = [made.adapter_of(device) for device in range(3)]
    assert len({update.digest(flat) for flat in worn}) == 3
    for device, flat in enumerate(worn):
        own = made.adaptor.adapter(made.lately[device])
        np.testing.assert_allclose(flat[rest], made.distilled[rest], atol=1e-2)
        np.testing.assert_allclose(flat[at], made.distilled[at] + own[at] - made.base[at], atol=1e-2)
        frame = made.lines[device].frame_for(device)
        found, _ = update.apply(frame, made.base, 0, made.layout.digest, made.layout.sizes, WIDE)
        np.testing.assert_array_equal(found, flat)
    np.testing.assert_array_equal(made.adapter_of(9), made.base)


def test_who_sends_nothing_gets_what_was_distilled_of_others(build, monkeypatch):
    made = build(**{"downlink.budget": WIDE})
    generated(made, 1)
    before = made.adapter_of(0)
    made.distilled, made.rounds = made.base + np.float32(0.25), made.rounds + 1
    made._learn(2, {0: None, 1: None})
    np.testing.assert_allclose(made.adapter_of(0), before + np.float32(0.25), atol=1e-2)
    np.testing.assert_allclose(made.adapter_of(1), made.distilled, atol=1e-2)
    monkeypatch.setattr(made, "_bring", None)  # both are there: nothing is coded again
    made._learn(3, {0: None, 1: None})


def test_its_state_brings_back_every_part_bit_for_bit(build):
    made, again = build(), build()
    generated(made)
    made.distilled, made.rounds = made.base + np.float32(0.5), 3
    made._brought(1)
    again.load(made.state())
    again.lines.load(made.lines.state())
    for device in range(3):
        np.testing.assert_array_equal(again.adapter_of(device), made.adapter_of(device))
        again._bring(device)
        made._bring(device)
        np.testing.assert_array_equal(again.adapter_of(device), made.adapter_of(device))
    assert again.brought == made.brought
    assert {*again.parts()} >= {"strategy", "lines", "cloud", "fleet"}


def test_a_run_distils_generates_and_sends_no_answer_and_no_label(clip_settings):
    settings = clip_settings(method="mmpg_cdc", rounds=2, **{"cloud.steps": 1})
    found = results.read(run_local(parse(settings)))
    assert set(found.devices["status"]) == {"ok"}
    assert (found.devices["flops_backward"] == 0).all()
    told = found.metrics.pivot_table(index="round", columns="name", values="value")
    assert told.loc[1:, "generated"].tolist() == [4, 4]
    assert (told.loc[1:, "distilled"] > 0).all()
    down = found.devices.groupby("round")["downlink_bytes"].max()
    assert down[1] < down[2] <= down[1] + parse(settings).downlink.budget + 64
    assert found.summaries["device"].tolist() == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mmpg", "mmpg_cdc"])
def test_a_run_over_clips_that_stops_after_every_round_ends_as_one_that_never_stopped(
    method, clip_settings, tmp_path
):
    made = clip_settings(method=method, rounds=4, eval_every=2, cohort=0.7, history=2)
    whole = run_local(parse({**made, "run.out-dir": str(tmp_path / "whole"), "run.checkpoint-every": 0}))
    assert interrupted(made, *(("rounds", round) for round in range(5))) == outcome(whole)
    expected, found = results.read(whole), results.read(made["run.out-dir"])
    assert expected.status == "completed"
    pd.testing.assert_frame_equal(found.personal, expected.personal)
    pd.testing.assert_frame_equal(found.summaries, expected.summaries)
