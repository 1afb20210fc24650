"""Comparisons of given numbers, as a folder of runs would be read."""

import numpy as np
import pandas as pd

from cdc_flower.results import DEVICE_COLUMNS, METRIC_COLUMNS, PERSONAL_COLUMNS, frame_of
from experiments.report import summary
from experiments.report.summary import Comparison, run_folder

TRAITS = {  # labels, device_backprop, adapts
    "static": (False, False, False),
    "cdc": (False, False, True),
    "labelled": (True, False, True),
    "fedavg_lora": (True, True, True),
    "fedavg_full": (True, True, True),
}
BYTES = {"static": 0, "cdc": 2_000_000, "labelled": 2_000_000, "fedavg_lora": 30_000_000, "fedavg_full": 9e7}


def made(out, right, *, drift=True, personal=False, answers=True):
    """A comparison whose arms have `right` of 100 answers on drift (or source) right, one number a seed.

    Args:
        out: its folder; `items.parquet` of each run lies there where `answers`.
        right: arm -> the number for each seed.
        drift: whether anything drifted.
        personal: whether devices were judged by their own items: ten devices, alike.
        answers: see `out`.
    """
    seeds = list(range(len(next(iter(right.values())))))
    index = {
        "config": {"run.devices": 10, "run.rounds": 2, "data.task": "exact"},
        "data": "scenes",
        "methods": list(right),
        "arms": {arm: {"run.method": arm} for arm in right},
        "seeds": seeds,
        "traits": {
            arm: dict(zip(("labels", "device_backprop", "adapts"), TRAITS[arm], strict=True)) for arm in right
        },
        "teacher": {},
        "versions": {},
        "status": "completed",
    }
    runs, rounds, own = [], [], []
    for arm, counts in right.items():
        for seed, count in enumerate(counts):
            shown = {"source": count / 100} | ({"object": count / 100} if drift else {})
            tag = {"method": arm, "seed": seed}
            row = {"acc_source": count / 100, "acc_drift": count / 100 if drift else None, "forgetting": 0.0}
            row |= {"uplink_bytes": BYTES[arm], "downlink_bytes": 0, "device_gflops": 1, "cloud_gflops": 1}
            runs.append({**tag, "status": "completed", "failures": 0, "accuracy": shown, **row})
            for r, worth in ((0, 0.1), (2, count / 100)):
                rounds += [
                    {**tag, "round": r, "domain": d, "kind": "test", "accuracy": worth, "n": 100}
                    for d in shown
                ]
            folder = run_folder(out, arm, seed)
            folder.mkdir(parents=True)
            if answers:
                worth = np.tile(np.arange(100) < count, len(shown)).astype(float)
                pd.DataFrame({"domain": np.repeat(list(shown), 100), "worth": worth}).to_parquet(
                    folder / "items.parquet"
                )
            for device in range(10 if personal else 0):
                one = {"round": 2, "device": device, "user": f"u{device}", "domain": "object", "familiar": ""}
                own.append({**tag, **one, "worth": count / 10, "items": 10})
    table = pd.DataFrame(runs)
    empty = frame_of([], PERSONAL_COLUMNS).assign(method="", seed=0)
    return Comparison(
        methods=summary._methods(table, index),
        runs=table,
        rounds=pd.DataFrame(rounds),
        devices=frame_of([], DEVICE_COLUMNS),
        metrics=frame_of([], METRIC_COLUMNS),
        pictures=pd.DataFrame(),
        personal=pd.DataFrame(own) if own else empty,
        retrieval=pd.DataFrame(),
        summaries=pd.DataFrame(),
        teacher={},
        teacher_on_stream={},
        items={"source": 100} | ({"object": 100} if drift else {}),
        index=index,
        out=out,
    )


def _luminance(colour):
    full = colour if len(colour) == 7 else "#" + "".join(2 * c for c in colour[1:])
    parts = [int(full[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """Of two colours as #rrggbb or #rgb, after WCAG 2: 1 to 21."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
