"""Every device wears the cloud's adapter with a patch of its own, which is all that goes up."""

from __future__ import annotations

import numpy as np
import pytest

from cdc_flower import results
from cdc_flower.config import parse
from strategies.dccl import DCCL
from strategies.run import prepare, run_local


def test_the_cloud_is_charged_for_the_device_s_model_that_reads_each_batch(run_settings):
    for steps, batch in ((2, 12), (0, 0)):
        made = DCCL.build(prepare(parse(run_settings(method="dccl", dccl_steps=steps, fedavg_batch=8))))
        assert (made.cloud_work(0).steps, made.cloud_work(0).batch) == (steps, batch)


@pytest.mark.slow
def test_a_run_sends_patches_up_and_the_cloud_learns_beside(run_settings):
    settings = run_settings(method="dccl", rounds=2, dccl_patch=16, dccl_steps=2)
    playing = DCCL.build(prepare(parse(settings)))
    before = playing.flat
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DCCL, "build", classmethod(lambda cls, setup: playing))
        found = results.read(run_local(parse(settings)))
    assert set(found.devices["status"]) == {"ok"}
    assert found.devices["uplink_bytes"].max() < 600
    assert found.devices["downlink_bytes"].min() > 2 * len(before)
    assert not np.array_equal(playing.flat, before)
    own = [playing.adapter_of(device) for device in range(3)]
    assert len({flat.tobytes() for flat in own}) == 3
    for device, flat in enumerate(own):
        moved = np.flatnonzero(flat != playing.flat)
        assert set(moved) <= set(playing.basis.places.tolist())
        np.testing.assert_array_equal(
            flat, playing.basis.patched(playing.flat, playing.own[device].astype(np.float32))
        )
    other = DCCL.build(prepare(parse(settings)))
    other.load(playing.state())
    assert np.array_equal(other.adapter_of(1), playing.adapter_of(1))
    assert other.metrics == playing.metrics
