"""A comparison counts every run, survives what goes wrong in some, and can be taken up again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

from cdc_flower.config import ConfigError
from cdc_flower.data import clips
from cdc_flower.data.packs import write_pack
from experiments.report import page
from experiments.run import compare

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "docs" / "summary.schema.json").read_text())
THREE = ("static", "cdc", "fedprox_lora")


def written(out):
    return json.loads((out / "summary.json").read_text())


def test_the_summary_follows_its_schema_and_its_definitions(run, tmp_path):
    made = run()
    found = written(tmp_path / "out")
    jsonschema.validate(found, SCHEMA)
    assert found["teacher"]["acc_source"] == 0.96
    assert found["teacher"]["acc_drift"] == pytest.approx(0.95)
    cdc = found["methods"]["cdc"]
    assert cdc["acc_source"] == pytest.approx(0.88)
    assert cdc["acc_drift"] == pytest.approx(0.85)
    assert cdc["forgetting"] == pytest.approx(0.02)  # 0.90 before the last round, 0.88 after it
    assert cdc["gap_closed"] == pytest.approx((0.85 - 0.40) / (0.95 - 0.40))
    assert (cdc["uplink_bytes"], cdc["downlink_bytes"]) == (4 * 2 * 100, 4 * 2 * 10)
    assert cdc["device_gflops"] == 8.0
    assert (cdc["failures"], cdc["runs"]) == (1, 1)
    assert set(cdc["ci95"].values()) == {None}
    assert (found["rounds"], found["devices"], found["seeds"], found["data"]) == (4, 2, 1, "scenes")
    assert found["host_seconds"]["cloud"] == 6.0
    assert found["status"] == made.status == "completed"
    assert made.methods["method"].tolist() == list(THREE)
    assert len(made.rounds) == 3 * (5 * 3 + 4)
    assert len(made.devices) == 3 * 8


def test_traits_come_from_the_strategies(run):
    made = run(methods=("static", "fedavg_lora")).methods.set_index("method")
    assert not made.loc["static", "labels"]
    assert made.loc["fedavg_lora", "labels"]
    assert made.loc["fedavg_lora", "device_backprop"]


def test_the_arm_of_a_method_has_the_settings_it_needs(run):
    """And no other method has them."""
    arms = compare._arms(("cdc", "released"), {"pair.adapter": "lora"})
    assert arms["cdc"] == {"run.method": "cdc"}
    assert arms["released"]["pair.adapter"] == "norms"
    assert arms["released"]["downlink.codec"] == "nf4"


def test_seeds_give_means_and_intervals(run, tmp_path):
    run(methods=("cdc",), seeds=3, seed=4)
    found = written(tmp_path / "out")
    jsonschema.validate(found, SCHEMA)
    cdc = found["methods"]["cdc"]
    assert cdc["acc_drift"] == pytest.approx(0.85 + 0.05)  # seeds 4, 5, 6 add 0.04, 0.05, 0.06
    low, high = cdc["ci95"]["acc_drift"]
    assert (high - low) / 2 == pytest.approx(4.303 * 0.01 / 3**0.5, abs=1e-6)
    assert cdc["gap_closed"] is None  # no static to measure it from


def test_resume_keeps_finished_runs_of_the_same_settings_alone(run, tmp_path):
    run()
    stamp = {m: (tmp_path / "out/runs" / f"{m}-0" / "run.json").stat().st_mtime_ns for m in THREE}
    (tmp_path / "out/runs/cdc-0/run.json").unlink()  # as if killed
    run(resume=True)
    again = {m: (tmp_path / "out/runs" / f"{m}-0" / "run.json").stat().st_mtime_ns for m in THREE}
    assert [m for m in THREE if stamp[m] == again[m]] == ["static", "fedprox_lora"]


@pytest.mark.parametrize("ended", [True, False])
def test_resume_refuses_to_lose_rounds_of_other_settings(run, tmp_path, ended):
    run(methods=("static", "cdc"))
    folder = tmp_path / "out/runs/static-0"
    if not ended:  # as if killed, with damaged tables and a checkpoint
        (folder / "run.json").unlink()
        (folder / "rounds.parquet").write_bytes(b"half")
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints/round-000004.ckpt").write_bytes(b"")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(
        ConfigError,
        match=r"--resume: the run in '.*static-0' \(4 rounds\) has 'run.rounds' = 4, not 3, and would begin "
        r"anew; allowed: the settings of that run, --replace \(begins anew\) or another folder",
    ):
        run(methods=("static", "cdc"), resume=True, rounds=3)
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    run(methods=("static", "cdc"), replace=True, rounds=3)
    assert written(tmp_path / "out")["methods"]["static"]["downlink_bytes"] == 3 * 2 * 10


def test_resume_takes_further_methods_and_seeds_and_folders_that_were_moved(run, tmp_path):
    run(methods=("static",))
    (tmp_path / "out").rename(tmp_path / "moved")
    run_json = tmp_path / "moved/runs/static-0/run.json"
    stamp = run_json.stat().st_mtime_ns
    made = run(methods=("static", "cdc"), seeds=2, resume=True, out=tmp_path / "moved")
    assert len(made.runs) == 4
    assert run_json.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_resume_goes_on_with_runs_that_did_not_finish_and_keeps_their_logs(run, tmp_path, capfd, workers):
    out = tmp_path / "out"
    run(workers=workers, out=out)
    (out / "runs/cdc-0/run.json").unlink()  # as if killed
    (out / "runs/static-0/config.json").unlink()  # as if killed in its start-up
    capfd.readouterr()
    run(resume=True, workers=workers, out=out)
    logs = [out / "runs/cdc-0.log", out / "runs/static-0.log", out / "runs/fedprox_lora-0.log"]
    said = "".join(p.read_text() for p in logs) if workers else capfd.readouterr().out
    assert said.count("goes on with") == 1
    assert "goes on with cdc" in said
    assert said.count("noise of cdc") == (2 if workers else 1)
    run(replace=True, workers=workers, out=out, cloud_steps=7)
    said = "".join(p.read_text() for p in logs) if workers else capfd.readouterr().out
    assert "goes on" not in said


def test_an_unfinished_comparison_is_replaced_where_that_is_asked_for_alone(run, tmp_path, capfd):
    run(methods=("static", "cdc"))
    index = tmp_path / "out" / "comparison.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "status": "interrupted"}))
    stamp = (tmp_path / "out/runs/cdc-0/run.json").stat().st_mtime_ns
    with pytest.raises(
        ConfigError, match=r"holds an unfinished comparison \(2 of 2 runs ended\); allowed: --re"
    ):
        run(methods=("static", "cdc"))
    assert (tmp_path / "out/runs/cdc-0/run.json").stat().st_mtime_ns == stamp
    run(methods=("static", "cdc"), replace=True)
    assert (tmp_path / "out/runs/cdc-0/run.json").stat().st_mtime_ns > stamp
    for name in ("rounds.parquet", "run.json"):  # as if killed before the first round
        (tmp_path / "out/runs/cdc-0" / name).unlink()
    config = tmp_path / "out/runs/cdc-0/config.json"
    config.write_text(config.read_text().replace('"run.rounds": 4', '"run.rounds": 3'))
    run(methods=("static", "cdc"), resume=True, progress=True)
    said = " ".join(capfd.readouterr().err.split())
    assert "cdc · seed 0: begins anew; the run that was there has other settings, pair or data" in said


def test_resume_refuses_to_lose_what_was_run_with_another_pair(run, tmp_path, monkeypatch):
    run()
    stamp = (tmp_path / "out/runs/cdc-0/run.json").stat().st_mtime_ns
    run(resume=True)
    assert (tmp_path / "out/runs/cdc-0/run.json").stat().st_mtime_ns == stamp
    monkeypatch.setenv("FAKE_PAIR", "retrained")
    with pytest.raises(ConfigError, match=r"static-0' \(4 rounds\) has 'pair_digest' = 'p', not 'retrained'"):
        run(resume=True)
    assert written(tmp_path / "out")["status"] == "completed"
    run(replace=True)
    assert (tmp_path / "out/runs/cdc-0/run.json").stat().st_mtime_ns > stamp


def test_resume_refuses_to_lose_what_was_run_with_other_content_of_a_named_file(run, tmp_path):
    mix = tmp_path / "fleet.toml"
    mix.write_text("[mix]\npi4 = 100\n")
    run(methods=("static",), **{"fleet.mix": str(mix)})
    run(methods=("static",), resume=True, **{"fleet.mix": str(mix)})
    mix.write_text("[mix]\npi5 = 100\n")
    with pytest.raises(
        ConfigError, match=r"static-0' \(4 rounds\) has '.*fleet.toml' = '\w{64}', not '\w{64}'"
    ):
        run(methods=("static",), resume=True, **{"fleet.mix": str(mix)})


def test_a_comparison_with_failed_runs_is_not_thrown_away_by_the_same_command(run, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_BREAK", "3")
    run(methods=("static", "cdc"))
    monkeypatch.delenv("FAKE_BREAK")
    before = written(tmp_path / "out")
    with pytest.raises(
        ConfigError,
        match=r"holds a comparison with failed runs \(0 of 2 runs ended\); allowed: --resume \(go",
    ):
        run(methods=("static", "cdc"))
    assert written(tmp_path / "out") == before
    assert run(methods=("static", "cdc"), resume=True).status == "completed"


def test_a_run_that_raises_is_named_and_the_others_count(run, tmp_path):
    made = run(methods=("fedavg_full", "cdc"))
    assert made.status == "failed"
    assert made.index["failed"] == {"fedavg_full · seed 0": "RuntimeError: no memory at all"}
    assert list(written(tmp_path / "out")["methods"]) == ["cdc"]
    jsonschema.validate(written(tmp_path / "out"), SCHEMA)
    assert "RuntimeError: no memory at all" in (tmp_path / "out" / page.REPORT).read_text()


@pytest.mark.parametrize(("when", "drawn"), [("0", False), ("1", True)])
def test_where_all_runs_fail_at_once_the_report_says_what_happened(run, tmp_path, monkeypatch, when, drawn):
    monkeypatch.setenv("FAKE_BREAK", when)
    made = run(methods=("static", "cdc"))
    assert made.status == "failed"
    jsonschema.validate(written(tmp_path / "out"), SCHEMA)
    shown = (tmp_path / "out" / page.REPORT).read_text()
    assert f"RuntimeError: round {when} broke" in shown
    assert ("nothing to draw" in shown) is not drawn
    assert ("<svg" in shown) is drawn


def test_settings_refused_by_a_run_end_the_comparison(run):
    with pytest.raises(ConfigError, match="fedavg.lr"):
        run(methods=("fedavg_pseudo", "cdc"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("cdc", "fedsgd")}, "unknown method 'fedsgd'; did you mean fedkd. allowed: cdc, "),
        ({"methods": ("cdc", "cdc")}, "at most once"),
        ({"methods": ()}, "methods = ''"),
        ({"seeds": 0}, "seeds = 0"),
        ({"workers": -1}, "workers = -1"),
        ({"rounds": 0}, "setting 'run.rounds' = 0"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(run, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        run(**options)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="holds something else"):
        run()


@pytest.mark.parametrize("other", [{"methods": ("static",)}, {"seeds": 2}, {"cloud_steps": 7}])
def test_another_comparison_is_not_written_over_one_that_came_to_its_end(run, tmp_path, other):
    run(methods=("static", "cdc"))
    stamp = (tmp_path / "out/runs/cdc-0/run.json").stat().st_mtime_ns
    with pytest.raises(
        ConfigError, match=r"other settings, methods or seeds \(2 runs\); allowed: another fo"
    ):
        run(**{"methods": ("static", "cdc"), **other})
    assert (tmp_path / "out/runs/cdc-0/run.json").stat().st_mtime_ns == stamp
    run(methods=("static", "cdc"))  # the same is made again
    assert (tmp_path / "out/runs/cdc-0/run.json").stat().st_mtime_ns > stamp


def test_an_old_run_of_another_comparison_is_not_counted(run, tmp_path):
    run()
    made = run(methods=("fedavg_full", "static"), replace=True)
    assert made.runs["method"].tolist() == ["static"]


def test_ctrl_c_reports_the_rounds_that_were_done_and_ends_with_130(engine, tmp_path):
    mark, out = tmp_path / "mark", tmp_path / "out"
    program = (  # what a shell runs in the background ignores SIGINT
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "if __name__ == '__main__':\n"  # workers need none of it
        " from experiments.cli import app as cli\n from experiments.run import compare\n"
        f" compare.run.__kwdefaults__ = None; compare.run.__defaults__ = tuple("
        f"{engine!r} if d == compare.ENGINE else d for d in compare.run.__defaults__)\n"
        f" cli.main(['compare', '--methods', 'static,cdc', '--out', {str(out)!r},"
        " '--workers', '1', '--no-plan', '--preset', 'none',"
        " '--set', 'run.rounds=4', '--set', 'run.devices=2'])\n"
    )
    (tmp_path / "program.py").write_text(program)
    environment = {**os.environ, "FAKE_SLOW": str(mark), "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not mark.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to the whole group
    shown, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert shown.rstrip().endswith(f"report: {out / page.REPORT}")
    assert "Traceback" not in errors
    found = written(out)
    jsonschema.validate(found, SCHEMA)
    assert found["status"] == "interrupted"
    assert found["methods"]
    said, command = errors.rstrip().splitlines()[-2:]
    assert said == f"interrupted: what was done is in '{out}'; this goes on:"
    assert command == (
        f"cdc-flower compare --methods static,cdc --out {out} --workers 1 --no-plan --preset none "
        "--set run.rounds=4 --set run.devices=2 --resume"
    )
    with pytest.raises(ConfigError, match=r"unfinished comparison \(0 of 2 runs ended\); allowed: --resume"):
        compare.run({"run.rounds": 4}, ("static",), out=out, engine=engine, plan=False)
    assert "This comparison was interrupted" in (out / page.REPORT).read_text()


@pytest.mark.parametrize(
    ("of", "settings", "said"),
    [
        (
            "clips",
            {"uplink.unit": "jpeg"},
            "'uplink.unit' = 'jpeg': of a clip, tokens go up; allowed: 'tokens'",
        ),
        ("clips", {"uplink.unit": "patches"}, "'uplink.unit' = 'patches': of a clip, tokens go up"),
        ("clips", {"pair.folder": "pictures"}, "pack 'clips' has clips, and pair .* reads pictures"),
        ("pictures", {"pair.folder": "clips"}, "'scenes' has pictures, and pair .* reads clips of 3"),
        ("clips", {"data.known-styles": "day,snow"}, "'domain' has no value 'snow'; allowed: day, night"),
        ("clips", {"data.partition-by": "shoe"}, "the data has no column 'shoe'"),
        ("folder", {"data.split-by": "shoe"}, "setting 'data.split-by' = 'shoe'.*; allowed: "),
        (
            "clips",
            {"data.split-by": "user"},
            "'data.split-by' = 'user': 'clips' are drawn anew for each part",
        ),
        ("folder", {"data.frames": "9"}, "'data.frames' = 9: pair .* reads 3; allowed: 0"),
    ],
)
def test_clips_and_pictures_that_do_not_fit_are_refused_before_the_first_round(
    of, settings, said, clip_settings, run_settings, clip_pair_folder, pair_folder, tmp_path
):
    base = run_settings() if of == "pictures" else clip_settings()
    if of == "folder":
        made = clips.generate(16, 6, 0)

        def rows(frame, images):
            frame = frame.rename(columns={"image_id": "clip_id"})
            return frame.assign(frames=[list(images[name]) for name in frame["clip_id"]])

        film = rows(made.train, made.train_images), rows(made.test, made.test_images)
        write_pack(tmp_path / "film", *film)
        base |= {"data.pack": str(tmp_path / "film"), "data.split-by": "user"}
    folders = {"clips": str(clip_pair_folder), "pictures": str(pair_folder)}
    changed = {key: folders.get(value, value) for key, value in settings.items()}
    base = {key: value for key, value in base.items() if key not in ("run.out-dir", "run.method")}
    options = {"out": tmp_path / "out", "workers": 0, "pretrain": False, "plan": False}
    with pytest.raises(ConfigError, match=said) as refused:
        compare.run({**base, **changed}, ("cdc",), **options)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()
