import json

import pytest

GIB = 2**30


@pytest.fixture
def sets(settings):
    own = {key: value for key, value in settings.items() if key != "cloud.batch"}
    return [part for key, value in own.items() for part in ("--set", f"{key}={value}")]


def test_a_plan_says_memory_bytes_and_seconds_for_programs(command, sets):
    code, out, _ = command("plan", "--methods", "static,cdc", "--workers", 2, "--json", *sets)
    assert code == 0
    found = json.loads(out)
    assert set(found["arms"]) == {"static", "cdc"}
    one = found["arms"]["cdc"]
    for role in ("device", "cloud"):
        need = one[role]["ram"]
        assert need["total"] == pytest.approx(sum(v for k, v in need.items() if k != "total"), abs=8)
        assert {"weights", "activations", "optimiser", "tokens", "ledger"} <= set(need)
    assert 0 < one["uplink_bytes"] <= 20_000
    assert one["seconds"][0]["work"] > 0
    assert found["ram"] > sum(p["count"] * p["ram"]["total"] for p in found["processes"])
    assert found["lacks"] is None


def test_a_plan_is_a_table_for_people(command, sets):
    code, out, _ = command("plan", "--methods", "cdc", "--engine", "local", *sets)
    assert code == 0
    for words in ("weights", "activations", "a device, cdc", "the cloud, cdc", "at most", "together: RAM"):
        assert words in out
    assert out.rstrip().endswith("fits")


def test_methods_that_take_the_same_stand_in_one_row(command, sets):
    code, out, _ = command("plan", "--methods", "cdc,labelled,fedavg_lora,tent", *sets)
    assert code == 0
    rows = [line for line in out.splitlines() if line.startswith(("a device, ", "the cloud, "))]
    named = [line.split("  ")[0] for line in rows if not line.startswith("a device,  ")]
    assert "a device, cdc, labelled" in named
    assert sum("tent" in line for line in named) == 2


def test_what_does_not_fit_is_said_with_what_would_make_it_fit(command, sets, monkeypatch):
    from experiments.run import plan

    monkeypatch.setattr(plan.Machine, "here", classmethod(lambda cls, gpu=True: cls(1.5 * GIB)))
    wide = ("--methods", "cdc", "--engine", "local", *sets, "--set", "cloud.batch=4096")
    code, out, _ = command("plan", *wide)
    assert code == 0
    assert "does not fit: about" in out
    assert "--set cloud.batch=" in out


@pytest.mark.parametrize("name", ["compare", "simulate"])
def test_commands_refuse_what_cannot_fit_in_one_line_before_they_do_anything(
    command, sets, tmp_path, monkeypatch, name
):
    from experiments.run import plan

    monkeypatch.setattr(plan.Machine, "here", classmethod(lambda cls, gpu=True: cls(1.5 * GIB)))
    methods = ("--methods", "cdc", "--workers", 0) if name == "compare" else ("--method", "cdc")
    wide = (*methods, *sets, "--set", "cloud.batch=4096", "--out", tmp_path / "out")
    code, out, err = command(name, *wide)
    assert (code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("error")]
    assert "--set cloud.batch=" in line
    assert "--no-plan" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--engine", "cluster"), "allowed: compare, local, fleet, flower"),
        (("--engine", "local", "--methods", "cdc,static"), "allowed: one method"),
        (("--methods", "nothing"), "unknown method 'nothing'"),
    ],
)
def test_bad_input_is_refused_in_one_line(command, given, says):
    code, _, err = command("plan", "--preset", "none", *given)
    assert code == 2
    assert says in err
