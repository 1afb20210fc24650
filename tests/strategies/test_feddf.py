"""FedDF is FedAvg, then a distillation of what it averaged."""

from __future__ import annotations

import numpy as np

from cdc_flower import results
from cdc_flower.config import parse
from strategies.feddf import FedDF
from strategies.run import prepare, run_local


def test_devices_do_what_those_of_fedavg_do_and_the_server_more(run_settings, monkeypatch):
    heard = []
    real = FedDF._average

    def noted(self, round, lessons):
        averaged, said = real(self, round, lessons)
        plain, _ = super(FedDF, self)._average(round, lessons)
        heard.append((plain, averaged, self.adapter_of(0)))
        return averaged, said

    monkeypatch.setattr(FedDF, "_average", noted)
    more = {"rounds": 1, "eval_every": 1, "cloud_batch": 4, "feddf_steps": 2}
    runs = {
        name: results.read(run_local(parse(run_settings(method=name, **more))))
        for name in ("fedavg_lora", "feddf")
    }
    same = ["device", "status", "uplink_bytes", "downlink_bytes", "flops_backward"]
    assert runs["feddf"].devices[same].equals(runs["fedavg_lora"].devices[same])
    ((plain, averaged, _),) = heard
    moved = np.abs(averaged - plain).max()
    assert 0 < moved < 2.1 * 1e-3  # two steps of Adam
    assert runs["feddf"].run["adapter_digest"] != runs["fedavg_lora"].run["adapter_digest"]


def test_the_cloud_is_charged_for_the_ensemble(run_settings):
    settings = run_settings(method="feddf", **{"cloud.batch": 8, "feddf.steps": 5})
    built = FedDF.build(prepare(parse(settings)))
    work = built.cloud_work(0)
    assert (work.steps, work.batch) == (5, 8 * (1 + (3 + 1) / 2))
    again = FedDF.build(prepare(parse({**settings, "fedavg.replay-steps": 5, "fedavg.batch": 8})))
    assert again.cloud_work(0).batch == work.batch + 8
