"""Whole runs in virtual time: modes, fates and digests, and fleets that are refused before round 1."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import cdc_flower
from cdc_flower import results
from cdc_flower.config import ConfigError, parse
from cdc_flower.fleet.cost import roofline
from cdc_flower.fleet.cost.profiles import TABLE
from clients import cdc, task
from strategies.run import run_local

SCENES = Path(cdc_flower.__file__).parent / "weights" / "scenes"
SLOW = {"mix": "pi4=50%,phone-high=50%", "cost_model": "llava-qwen-0.5b", "compression": "nf4"}


def played(run_settings, **more):
    fixed = {"devices": 6, "rounds": 4, "cohort": 0.5, "cloud_steps": 1, "mode": "sync", "trace": "always"}
    given = run_settings(**{**fixed, **more})
    return results.read(run_local(parse(given)))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"late": "take", "over_selection": 2.0},
        {"mode": "async", "in_flight": 4, "buffer": 2},
        {"run.method": "fedavg_lora"},
        pytest.param({"run.method": "static"}, marks=pytest.mark.slow),
    ],
)
def test_the_same_seed_gives_the_same_hours_and_ledger(run_settings, more):
    def once(roundtrip, seed=0):
        given = run_settings(
            **{
                "devices": 6,
                "rounds": 3,
                "cohort": 0.5,
                "cloud_steps": 1,
                "seed": seed,
                "trace": "always",
                "mode": "sync",
                **more,
            }
        )
        return results.read(run_local(parse(given), roundtrip=roundtrip))

    first, again = once(False), once(True)
    assert first.status == "completed"
    assert first.run["ledger_digest"] == again.run["ledger_digest"]
    assert more or once(False, seed=1).run["ledger_digest"] != first.run["ledger_digest"]
    assert first.rounds.equals(again.rounds)
    hours = first.metrics.query("name == 'hours'")["value"].to_numpy()
    assert (np.diff(hours) > 0).all()
    assert len(hours) == 3
    columns = ["download_seconds", "work_seconds", "upload_seconds", "offline_seconds", "wait_seconds"]
    assert (first.devices[[*columns, "joules"]].to_numpy() >= 0).all()


@pytest.mark.parametrize(
    ("mode", "profile"),
    [("sync", "gpu-server"), ("async", "gpu-server"), pytest.param("sync", "", marks=pytest.mark.slow)],
)
def test_the_cloud_takes_time_between_rounds(run_settings, mode, profile):
    found = played(
        run_settings,
        mix="macmini=100%",
        cost_model="llava-1.5-7b",
        buffer=2,
        in_flight=4,
        mode=mode,
        cloud_profile=profile,
    )
    cloud, hours = (
        found.metrics.query(f"name == '{n}'")["value"].to_numpy() for n in ("cloud_seconds", "hours")
    )
    assert ((cloud > 0) == bool(profile)).all()
    begin = found.devices.groupby("round")["begin"].first().to_numpy()
    np.testing.assert_allclose(begin[1:], 3600 * hours[:-1] + cloud[:-1])


@pytest.mark.parametrize("method", ["static", pytest.param("fedavg_lora", marks=pytest.mark.slow)])
def test_a_cloud_that_does_not_distil_takes_no_time(run_settings, method):
    found = played(run_settings, method=method, cost_model="llava-1.5-7b", mix="macmini=100%")
    assert not found.metrics.query("name == 'cloud_seconds'")["value"].any()


@pytest.mark.parametrize(
    "more",
    [
        {"run.devices": 1},
        {"cohort": 1e-9, "over_selection": 1000.0},
        {"fleet.mode": "async", "fleet.buffer": 100},
        {"mode": "async", "buffer": 100, "in_flight": 1, "devices": 1},
        {"round_every": 3e7, "mix": "phone-high=100%"},
        {"mix": "phone-high=100%", "min_battery": 1.0},
        {"fleet.deadline": 3e7, "fleet.late": "take", "fleet.mix": "phone-high=100%"},
    ],
)
def test_extreme_settings_that_are_allowed_run(run_settings, more):
    found = played(run_settings, **{"run.rounds": 2, **more})
    assert found.status == "completed"
    assert (found.metrics.query("name == 'in'")["value"] > 0).all()
    assert (found.devices["status"] == "ok").sum() == found.metrics.query("name == 'in'")["value"].sum()


def test_batteries_that_are_empty_at_once_are_empty_rounds(run_settings, tmp_path):
    known = json.loads(TABLE.read_text())["phone-mid"]
    mine = {**known, "battery": [1e-9, "mine"], "charge_power": [1e-9, "mine"]}
    (tmp_path / "mine.json").write_text(json.dumps({"mine": mine}))
    (tmp_path / "mix.toml").write_text('profiles = ["mine.json"]\n[mix]\nmine = 100\n')
    found = played(run_settings, mix=str(tmp_path / "mix.toml"))
    assert found.status == "completed"
    assert found.metrics.query("name == 'flat'")["value"].tolist() == [4, 0, 0, 0]
    assert found.metrics.query("name == 'asked'")["value"].tolist() == [4, 0, 0, 0]


def test_stragglers_are_missing_and_the_others_are_enough(run_settings):
    found = played(run_settings, over_selection=2.0, **SLOW)
    rows = found.devices
    assert (rows.groupby("round").size() == 6).all()
    assert (rows.query("status == 'ok'").groupby("round").size() == 3).all()
    assert set(rows.query("status == 'missing'")["fate"]) == {"late"}
    assert set(rows.query("status == 'ok'")["fate"]) == {"in"}
    late = rows.query("fate == 'late'")["profile"].value_counts()
    assert late.idxmax() == rows.groupby("profile")["work_seconds"].max().idxmax()


def test_late_answers_that_are_taken_teach_and_none_is_lost(run_settings):
    found = played(run_settings, over_selection=2.0, late="take", **{**SLOW, "fleet.mix": "pi4=50%,pi5=50%"})
    rows = found.devices
    assert rows.query("fate == 'in'")["status"].eq("ok").all()
    assert rows.query("fate == 'late'")["status"].eq("ok").any()
    asked = found.metrics.query("name == 'asked'")["value"].tolist()
    assert len(rows) == sum(asked)
    assert rows.query("status == 'ok'").groupby(["round", "device"]).size().max() == 1
    answered = found.metrics.query("name == 'answered'")["value"].sum()
    assert answered == (rows["status"] == "ok").sum()


def test_a_night_without_devices_is_rounds_without_answers(run_settings, tmp_path):
    trace = tmp_path / "trace.json"
    trace.write_text('{"period": 4000, "intervals": [[0, 0, 900, true, true], [3, 3000, 4000, true, true]]}')
    given = run_settings(devices=6, rounds=4, mode="sync", trace=str(trace), round_every=1000.0)
    found = results.read(run_local(parse(given)))
    assert found.status == "completed"
    assert found.metrics.query("name == 'asked'")["value"].tolist() == [1, 0, 0, 1]
    assert found.metrics.query("name == 'online'")["value"].tolist() == [1, 0, 0, 1]
    assert found.devices["device"].tolist() == [0, 3]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            {"fleet.mode": "async", "run.method": "fedavg_lora"},
            "setting 'fleet.mode' = 'async': method 'fedavg_lora' averages",
        ),
        (
            {"fleet.late": "take", "run.method": "static"},
            "setting 'fleet.late' = 'take': method 'static' averages",
        ),
        (
            {"pair.compression": "auto", "fleet.mode": "off"},
            "setting 'pair.compression' = 'auto': devices have no RAM",
        ),
        (
            {"cost_model": "llava-1.5-7b"},
            "setting 'pair.compression' = 'nf4': profile 'phone-mid' has 2,500 MB",
        ),
        (
            {"cost_model": "llava-qwen-0.5b"},
            "setting 'pair.compression' = 'nf4': profile 'phone-old' has 1,200 MB",
        ),
        (
            {"cost_model": "llava-1.5-7b", "compression": "auto"},
            "field 'ram' = 2,500 MB holds the model in no",
        ),
        ({"fleet.mix": "nokia=100%"}, "unknown profile 'nokia'"),
        ({"cloud_profile": "abacus"}, "setting 'fleet.cloud-profile' = 'abacus'; allowed: '' .*gpu-server"),
        ({"round_every": 1e300}, "'fleet.round-every' = 1e.300; allowed: a number .* to 31622400"),
        ({"fleet.deadline": 1e300}, "'fleet.deadline' = 1e.300; allowed: a number .* to 31622400"),
        ({"fleet.zones": "noon"}, "setting 'fleet.zones' = 'noon'"),
        ({"fleet.trace": "absent.parquet"}, "does not exist"),
        (
            {"trace": "unplugged.json", "need_charging": True},
            "no device is ever online and, where asked for, ch",
        ),
    ],
)
def test_a_fleet_that_cannot_run_is_refused(run_settings, more, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unplugged = '{"period": 4000, "intervals": [[0, 0, 900, false, true]]}'
    (tmp_path / "unplugged.json").write_text(unplugged)
    with pytest.raises(ConfigError, match=says):
        run_local(parse(run_settings(**{"fleet.mode": "sync", **more})))


def test_each_device_runs_the_least_compression_that_its_ram_holds(run_settings, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(
        cdc,
        "resident",
        lambda shared, config: ran.append(config.compression) or task.resident(shared, config),
    )
    table = json.loads(TABLE.read_text())
    shapes = roofline.shapes(json.loads((SCENES / "student" / "config.json").read_text()), 16)
    for name, kind in (("large", "none"), ("middle", "int8"), ("small", "nf4")):
        table[name] = {**table["pi4"], "ram": [roofline.needed_bytes(shapes, kind, 80), "chosen"]}
    (tmp_path / "mine.json").write_text(json.dumps({n: table[n] for n in ("large", "middle", "small")}))
    mix = 'profiles = ["mine.json"]\n[mix]\nlarge = 50\nmiddle = 25\nsmall = 25\n'
    (tmp_path / "mix.toml").write_text(mix)
    given = run_settings(
        devices=4,
        rounds=2,
        mode="sync",
        trace="always",
        over_selection=1.0,
        mix=str(tmp_path / "mix.toml"),
        compression="auto",
        **{"pair.folder": ""},
        lora_rank=16,
    )
    found = results.read(run_local(parse(given)))
    kinds = dict(zip(found.devices["device"], found.devices["compression"], strict=True))
    assert sorted(kinds.values()) == ["int8", "nf4", "none", "none"]
    assert ran == [kinds[device] for _ in range(2) for device in range(4)]
    assert set(found.devices["status"]) == {"ok"}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"fleet.mode": "async"},
        pytest.param({"run.method": "fedavg_lora"}, marks=pytest.mark.slow),
        pytest.param({"fleet.late": "take"}, marks=pytest.mark.slow),
    ],
)
def test_a_deadline_nobody_can_meet_is_empty_rounds_and_not_the_end(run_settings, more):
    slow = {"mix": "pi4=100%", "cost_model": "llava-qwen-0.5b", "compression": "int8", "deadline": 1.0}
    given = run_settings(**{"fleet.mode": "sync", "fleet.trace": "always", "run.rounds": 2, **slow, **more})
    found = results.read(run_local(parse(given)))
    assert found.status == "completed"
    assert set(found.devices["status"]) == {"missing"}
    assert found.metrics.query("name == 'hours'")["value"].tolist() == pytest.approx([1 / 3600, 2 / 3600])
    assert found.metrics.query("name == 'in'")["value"].tolist() == [0, 0]
