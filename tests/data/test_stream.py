"""Domains, partitions and streams: who sees what and when, and that a seed decides all of it."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_flower.config import ConfigError, parse
from cdc_flower.data.packs import read_pack
from cdc_flower.data.stream import (
    Streams,
    check_domains,
    domains,
    drift_share,
    generator,
    partition,
    schedule,
)

REAL = Path(os.environ.get("CDC_FLOWER_PACKS") or Path(__file__).parents[3] / "shared" / "data")


def frame(count: int = 240, users: int = 6) -> pd.DataFrame:
    """Rows that run through every combination of object, question and style."""
    i = np.arange(count)
    return pd.DataFrame(
        {
            "concept": np.array(["cat", "dog", "owl", "fox"])[i % 4],
            "qtype": np.array(["what", "count", "where"])[i // 4 % 3],
            "domain": np.array(["flat", "night"])[i // 12 % 2],
            "user": [f"u{k % users}" for k in i],
        }
    ).astype("str")


# --- domains ---------------------------------------------------------------------------------------------


def test_a_domain_says_which_things_the_student_never_saw():
    data = parse(
        {"data.known-objects": "cat, dog", "data.known-questions": "what", "data.known-styles": "flat"}
    ).data
    rows = frame()
    for (_, row), name in zip(rows.iterrows(), domains(rows, data), strict=True):
        known = {
            "object": row.concept in ("cat", "dog"),
            "question": row.qtype == "what",
            "style": row.domain == "flat",
        }
        unknown = [axis for axis in known if not known[axis]]
        assert name == ("source" if not unknown else unknown[0] if len(unknown) == 1 else "mixed")


def test_without_known_settings_everything_is_source():
    assert set(domains(frame(), parse({}).data)) == {"source"}


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6), min_size=1),
    st.integers(1, 100),
    st.randoms(),
)
def test_a_share_takes_that_many_values_whatever_the_order_of_rows(values, percent, random):
    values = sorted(values)
    data = parse({"data.known-objects": f"{percent}%"}).data

    def known(order: list[str]) -> set[str]:
        rows = pd.DataFrame({"concept": order})
        rows["qtype"] = rows["domain"] = "a"
        return {value for value, name in zip(order, domains(rows, data), strict=True) if name == "source"}

    chosen = known(values)
    shuffled = values * 2
    random.shuffle(shuffled)
    assert known(shuffled) == chosen
    assert len(chosen) == max(1, round(percent / 100 * len(values)))


def test_a_larger_share_keeps_what_a_smaller_one_knows():
    rows = frame()
    known = [
        set(rows["concept"][domains(rows, parse({"data.known-objects": f"{p}%"}).data) == "source"])
        for p in (25, 50, 75, 100)
    ]
    assert [len(k) for k in known] == [1, 2, 3, 4]
    assert known[0] < known[1] < known[2] < known[3]


def test_test_rows_share_the_boundary_of_the_train_rows():
    train = frame()
    test = train[train["concept"] != "cat"].reset_index(drop=True)
    data = parse({"data.known-objects": "50%"}).data
    known = set(train["concept"][domains(train, data) == "source"])
    assert set(test["concept"][domains(test, data, reference=train) == "source"]) == known - {"cat"}
    named = parse({"data.known-objects": "cat"}).data
    assert "source" not in domains(test, named, reference=train)


def test_columns_of_numbers_are_values_too():
    rows = frame().assign(digit=np.arange(240) % 10)
    names = domains(rows, parse({"data.object-column": "digit", "data.known-objects": "1,2"}).data)
    assert set(rows["digit"][names == "source"]) == {1, 2}


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("data.known-objects", "cat,bat", ["'bat'", "cat, dog, fox, owl"]),
        ("data.known-questions", "why", ["'why'", "count, what, where"]),
        ("data.known-styles", "-5%", ["data.known-styles", "0%"]),
        ("data.known-styles", "half%", ["data.known-styles", "'50%'"]),
        ("data.known-objects", "101%", ["data.known-objects", "100%"]),
    ],
)
def test_a_value_that_does_not_occur_is_refused_naming_those_that_do(key, value, named):
    with pytest.raises(ConfigError) as error:
        domains(frame(), parse({key: value}).data)
    for part in [key, value, *named]:
        assert part in str(error.value)


def test_known_objects_without_their_column_are_refused():
    with pytest.raises(ConfigError, match=r"known-objects.*column 'concept'.*qtype, domain, user"):
        domains(frame().drop(columns="concept"), parse({"data.known-objects": "cat"}).data)


def test_an_empty_domain_is_refused_with_the_counts_of_the_others():
    full = np.array(["source"] * 3 + ["object"] * 2)
    check_domains(full, full, ("object",))
    with pytest.raises(ConfigError, match=r"domain 'question' is empty in the train.*source 3, object 2"):
        check_domains(full, full, ("object", "question"))
    with pytest.raises(ConfigError, match=r"domain 'object' is empty in the test split.*source 3"):
        check_domains(full, full[:3], ("object",))
    with pytest.raises(ConfigError, match=r"domain 'source' is empty"):
        check_domains(full[3:], full, ())


# --- devices ---------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["iid", "natural", "dirichlet"]), st.integers(1, 6), st.integers(0, 2**31 - 1))
def test_every_row_belongs_to_exactly_one_device(kind, devices, seed):
    rows = frame(120)
    data = parse({"data.partition": kind, "data.dirichlet-alpha": 5.0}).data
    parts = partition(rows, data, devices, seed)
    assert len(parts) == devices
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(120))
    assert all(part.dtype == np.int64 and len(part) for part in parts)
    again = partition(rows, data, devices, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@pytest.mark.parametrize("kind", ["iid", "natural", "dirichlet"])
def test_another_seed_is_another_partition(kind):
    data = parse({"data.partition": kind}).data
    first, second = (partition(frame(users=40), data, 5, seed) for seed in (0, 1))
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("devices", [1, 3, 7, 10])
def test_natural_devices_get_whole_users_in_even_groups(devices):
    rows = frame(users=10)
    parts = partition(rows, parse({"data.partition": "natural"}).data, devices, 0)
    users = [set(rows["user"].iloc[part]) for part in parts]
    assert sum(map(len, users)) == 10, "no user is on two devices"
    assert max(map(len, users)) - min(map(len, users)) <= 1


def test_iid_devices_are_equally_large():
    sizes = [len(part) for part in partition(frame(242), parse({}).data, 5, 0)]
    assert max(sizes) - min(sizes) <= 1


def test_a_small_alpha_makes_devices_of_one_kind():
    rows = frame(1200)
    by = {"data.partition": "dirichlet", "data.partition-by": "concept"}

    def largest_share(alpha: float) -> float:
        parts = partition(rows, parse(by | {"data.dirichlet-alpha": alpha}).data, 4, 3)
        return float(np.mean([Counter(rows["concept"].iloc[p]).most_common(1)[0][1] / len(p) for p in parts]))

    assert largest_share(0.2) > largest_share(100.0) + 0.15


@pytest.mark.parametrize(
    ("settings_", "devices", "named"),
    [
        ({"data.partition": "natural"}, 7, ["devices", "7", "6 values", "at most 6"]),
        (
            {"data.partition": "natural", "data.partition-by": "city"},
            2,
            ["data.partition-by", "city", "concept, qtype"],
        ),
        ({}, 241, ["devices", "241", "240"]),
        (
            {"data.partition": "dirichlet", "data.dirichlet-alpha": 1e-3},
            100,
            ["data.dirichlet-alpha", "100 devices", "larger"],
        ),
    ],
)
def test_an_impossible_partition_is_refused(settings_, devices, named):
    with pytest.raises(ConfigError) as error:
        partition(frame(), parse(settings_).data, devices, 0)
    for part in named:
        assert part in str(error.value)


# --- rounds ----------------------------------------------------------------------------------------------

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


def test_the_generator_depends_on_all_of_its_arguments_and_on_nothing_else():
    draws = {int(generator(s, p, d).integers(2**60)) for s in (0, 1) for p in ("a", "b") for d in (0, 1)}
    assert len(draws) == 8
    assert generator(7, "stream/source", 3).integers(2**31) == 977788550, "the same on every machine"


# --- the real packs --------------------------------------------------------------------------------------


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
