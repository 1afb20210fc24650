"""Streams: who meets what and when, and that a seed decides all of it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_flower.config import ConfigError, parse
from cdc_flower.data.domains import check_domains, domains
from cdc_flower.data.packs import read_pack
from cdc_flower.data.partition import partition
from cdc_flower.data.schedule import Streams, drift_share, repeats, schedule
from tests.data.frames import frame

REAL = Path(os.environ.get("CDC_FLOWER_PACKS") or Path(__file__).parents[3] / "shared" / "data")


drifts = st.fixed_dictionaries(
    {
        "drift.axes": st.sampled_from(["object", "object,question", "style,mixed,object", "none"]),
        "drift.onset": st.integers(1, 5),
        "drift.spread": st.integers(0, 4),
        "drift.ramp": st.integers(1, 5),
        "drift.source-share": st.sampled_from([0.0, 0.25, 0.3, 1.0]),
        "drift.per-device": st.sampled_from(["all", "one"]),
    }
)


@given(drifts, st.integers(1, 20))
def test_drift_begins_at_the_onset_grows_and_stays(drift, devices):
    config = parse(drift).drift
    full = 0.0 if config.axes == "none" else 1 - config.source_share
    onsets = set()
    for device in range(devices):
        shares = [drift_share(config, device, devices, r) for r in range(1, 16)]
        assert shares == sorted(shares)
        assert shares[-1] == full
        if full:
            onset = next(r for r, s in enumerate(shares, start=1) if s)
            onsets.add(onset)
            assert config.onset <= onset <= config.onset + config.spread
            assert shares[onset + config.ramp - 2] == full
            assert config.ramp == 1 or shares[onset + config.ramp - 3] < full
    if full:
        assert len(onsets) == min(devices, config.spread + 1)
        assert min(onsets) == config.onset


def some_rows() -> tuple[np.ndarray, np.ndarray]:
    domain = np.array(["source", "object", "question", "style", "mixed"])[np.arange(500) % 5]
    return domain, np.arange(100, 400)


@settings(max_examples=60, deadline=None)
@given(drifts, st.integers(1, 9), st.integers(1, 12), st.integers(0, 3), st.integers(0, 99))
def test_a_stream_keeps_to_its_device_its_axes_and_the_drift_share(drift, count, rounds, device, seed):
    config = parse(
        drift | {"run.samples-per-round": count, "run.rounds": rounds, "run.seed": seed, "run.devices": 4}
    )
    domain, rows = some_rows()
    stream = schedule(domain, rows, config, device)
    assert len(stream) == rounds
    met, due = 0, 0.0
    for round, drawn in enumerate(stream, start=1):
        assert drawn.shape == (count,)
        assert drawn.dtype == np.int64
        assert set(drawn.tolist()) <= set(rows.tolist())
        assert set(domain[drawn]) <= {"source", *config.axes}
        drifted = int(np.sum(domain[drawn] != "source"))
        share = drift_share(config.drift, device, 4, round)
        assert abs(drifted - share * count) < 1 + 1e-6
        met, due = met + drifted, due + share * count
        assert -1e-6 <= due - met < 1 + 1e-6
    kinds = Counter(domain[np.concatenate(stream)].tolist())
    drifted_kinds = [kinds.get(axis, 0) for axis in config.axes]
    if config.drift.per_device == "one":
        assert sum(n > 0 for n in drifted_kinds) <= 1
    elif drifted_kinds:
        assert max(drifted_kinds) - min(drifted_kinds) <= 1, "the axes take turns"
    again = schedule(domain, rows, config, device)
    assert all(np.array_equal(a, b) for a, b in zip(stream, again, strict=True))


def test_rows_come_again_only_when_all_have_come():
    config = parse({"drift.axes": "none", "run.samples-per-round": 7, "run.rounds": 10})
    domain, rows = np.array(["source"] * 20), np.arange(20)
    drawn = np.concatenate(schedule(domain, rows, config, 0))
    assert set(Counter(drawn[:14].tolist()).values()) == {1}
    assert set(Counter(drawn.tolist()).values()) == {3, 4}


def test_streams_differ_by_seed_and_device_and_not_by_the_order_of_calls():
    domain, rows = some_rows()

    def stream(seed: int, device: int) -> list[int]:
        return np.concatenate(schedule(domain, rows, parse({"run.seed": seed}), device)).tolist()

    forward = {(s, d): stream(s, d) for s in (0, 1) for d in (0, 1)}
    backward = {(s, d): stream(s, d) for s in (1, 0) for d in (1, 0)}
    assert forward == backward
    assert len({tuple(v) for v in forward.values()}) == 4


def test_one_axis_each_goes_round_the_devices():
    domain, rows = some_rows()
    config = parse({"drift.per-device": "one", "drift.axes": "object,question,style"})
    met = [set(domain[np.concatenate(schedule(domain, rows, config, d))]) - {"source"} for d in range(4)]
    assert met == [{"object"}, {"question"}, {"style"}, {"object"}]


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        (["source"], {"source"}),
        (["object"], {"object"}),
        (["source", "question"], {"source", "question"}),
        (["object", "question"], {"object", "question"}),
    ],
)
@pytest.mark.parametrize("per_device", ["all", "one"])
def test_a_device_without_some_domains_uses_what_it_has(has, expected, per_device):
    domain = np.array(has * 30)
    config = parse({"drift.per-device": per_device, "drift.axes": "object,question"})
    stream = schedule(domain, np.arange(len(domain)), config, 0)
    met = set(domain[np.concatenate(stream)])
    assert met <= expected
    assert all(len(drawn) == config.run.samples_per_round for drawn in stream)
    assert per_device == "one" or met == expected


def test_a_device_with_nothing_usable_is_refused():
    domain = np.array(["style"] * 9 + ["source"])
    with pytest.raises(ConfigError, match="device 1 has no rows"):
        Streams(domain, [np.arange(10), np.arange(9)], parse({"drift.axes": "object"}))


def test_streams_are_made_when_asked_for_and_are_those_of_the_schedule():
    domain, rows = some_rows()
    config = parse({"run.devices": 3, "run.rounds": 4})
    parts = partition(frame(), parse({"data.partition": "shared"}).data, 3, 0)
    assert [part.tolist() for part in parts] == [list(range(240))] * 3
    streams = Streams(domain, [rows, rows[::2], rows], config)
    assert len(streams) == len(list(streams)) == 3
    for device, own in ((1, rows[::2]), (0, rows)):
        expected = schedule(domain, own, config, device)
        assert all(np.array_equal(a, b) for a, b in zip(streams[device], expected, strict=True))
    with pytest.raises(IndexError, match="device 3 of 3"):
        streams[3]


@pytest.mark.packs
@pytest.mark.parametrize(
    ("name", "known", "counts"),
    [
        (
            "signdigits",
            {"data.known-questions": "digit,parity", "drift.axes": "question"},
            {"source", "question"},
        ),
        (
            "emoji",
            {"data.known-styles": "twemoji,noto", "data.known-objects": "50%", "drift.axes": "object,style"},
            {"source", "object", "style", "mixed"},
        ),
        (
            "easyvqa",
            {
                "data.known-questions": "yesno,shape",
                "data.object-column": "domain",
                "data.known-objects": "50%",
            },
            {"source", "object", "question", "mixed"},
        ),
    ],
)
def test_real_packs_drift_and_are_cut_over_devices(name, known, counts):
    if not (REAL / name).is_dir():
        pytest.skip(f"no data pack {name} in {REAL}; set CDC_FLOWER_PACKS")
    pack = read_pack(REAL / name)
    config = parse(known | {"data.partition": "natural" if name == "signdigits" else "iid"})
    train = domains(pack.train, config.data)
    test = domains(pack.test, config.data, reference=pack.train)
    assert set(train) == set(test) == counts
    check_domains(train, test, config.axes)
    parts = partition(pack.train, config.data, 8, 0)
    if name == "signdigits":
        users = [set(pack.train["user"].iloc[part]) for part in parts]
        assert sum(map(len, users)) == 158
    for device, rows in enumerate(parts):
        last = schedule(train, rows, config, device)[-1]
        assert np.isin(last, rows).all()
        assert np.mean(train[last] != "source") == 0.75


def test_rows_that_a_device_meets_again_are_counted():
    streams = np.array([[[0, 1], [2, 3]], [[4, 5], [4, 4]]])
    assert repeats(streams) == {
        "questions": 4,
        "distinct_rows": 3.0,
        "fewest_distinct_rows": 2,
        "repeating_devices": 1,
    }
    assert repeats(streams[:1])["repeating_devices"] == 0
