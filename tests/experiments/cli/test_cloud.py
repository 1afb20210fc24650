"""`cdc-flower cloud`: what can be said of a cloud without running one."""

from __future__ import annotations

import json

import pytest

from cdc_flower import checkpoint
from cdc_flower.setting import written
from experiments.cli.app import main
from experiments.deploy.settings import FILE, CloudConfig
from strategies.served import versions


@pytest.fixture
def cloud(tmp_path):
    (tmp_path / FILE).write_text(written(CloudConfig()))
    (tmp_path / "devices.json").write_text("{}")
    for version in (3, 4):
        checkpoint.save(tmp_path / "run" / "checkpoints", version, {})
        versions.keep(tmp_path / "run", version, version, 20)
    return tmp_path


def ends(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["cloud", *map(str, arguments)])
    return ended.value.code


def test_a_rollback_is_asked_for_by_a_file(cloud, capsys):
    assert ends("rollback", cloud, 3) == 0
    assert versions.requested(cloud) == 3
    assert "version 3 is asked for" in capsys.readouterr().out


def test_a_version_that_is_not_kept_is_refused_with_those_that_are(cloud, capsys):
    assert ends("rollback", cloud, 7) == 2
    assert capsys.readouterr().err == "error: version 7 is not kept; allowed: 3, 4\n"
    assert versions.requested(cloud) is None


def test_status_says_what_the_cloud_wrote(cloud, capsys):
    device = {"device": 2, "name": "shelf", "connected": True, "version": 4, "samples": 9, "bytes_up": 1000}
    (cloud / "status.json").write_text(
        json.dumps({"time": 1.0, "state": "waiting", "round": 5, "version": 4, "devices": [device]})
    )
    assert ends("status", cloud) == 0
    said = capsys.readouterr().out
    assert "; waiting" in said
    assert "round 5, version 4" in said
    assert "shelf" in said
    assert ends("status", cloud, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["up"], found["round"], found["devices"][0]["samples"]) == (False, 5, 9)


def test_status_says_what_is_wrong_and_what_can_be_done(cloud, capsys):
    said = {
        "time": 1.0,
        "strangers": [{"node": "77", "reason": "it claims to be device 1, which is revoked"}],
        "kept": [3, 4],
        "rollback": {"version": 2, "round": 5, "refused": "version 2 is not kept"},
    }
    (cloud / "status.json").write_text(json.dumps(said))
    assert ends("status", cloud) == 0
    found = " ".join(capsys.readouterr().out.split())
    assert f"not up (cdc-flower cloud up {cloud})" in found
    assert "has not written its state for a long time" in found
    assert "node 77 is no device: it claims to be device 1, which is revoked" in found
    assert "go back to (cloud rollback): 3, 4" in found
    assert "to version 2, was refused: version 2 is not kept" in found
    said["rollback"]["refused"] = ""
    (cloud / "status.json").write_text(json.dumps(said))
    assert ends("status", cloud) == 0
    assert "to version 2, was done after round 5" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", [["status"], ["up"], ["rollback", "1"], ["page"]])
def test_a_folder_of_something_else_is_refused(command, tmp_path, capsys):
    assert ends(command[0], tmp_path, *command[1:]) == 2
    assert "provision init" in capsys.readouterr().err
