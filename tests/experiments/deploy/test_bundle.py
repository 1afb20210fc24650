"""Claims about what is in a bundle, and what is not."""

from __future__ import annotations

import json
import shutil
import tarfile

import pytest

from cdc_flower.config import flat, parse
from cdc_flower.data.source import longest_question, source
from cdc_flower.data.world import load_world
from cdc_flower.models.shared import load_shared
from cdc_flower.models.transform import FILE
from clients.device.models import verify
from clients.device.settings import Bundle
from experiments.deploy import bundle, keys, provision


def test_a_bundle_has_what_a_device_needs_and_nothing_of_teacher_labels_or_the_clouds_keys(cloud):
    _, made = provision.device(cloud, own={"feed-path": "/var/spool/cdc"})
    names = {p.relative_to(made).as_posix() for p in made.rglob("*") if p.is_file()}
    assert names == {
        *("device.toml", "settings.json", "ca.crt", "device.key", "device.key.pub", "models.json"),
        *(
            "models/pair/pair.json",
            "models/pair/student/config.json",
            "models/pair/student/model.safetensors",
        ),
    }
    assert json.loads((made / "settings.json").read_text())["run.receipts"] is True
    assert verify(made) == {"pair.folder": made / "models" / "pair"}
    private = [p.name for p in made.rglob("*") if p.is_file() and b"PRIVATE KEY" in p.read_bytes()]
    assert private == ["device.key"]


def test_an_archive_keeps_modes_and_is_its_owners_alone(cloud, tmp_path):
    _, made = provision.device(cloud, name="kitchen")
    packed = made.with_name("kitchen.tar.gz")
    assert packed.stat().st_mode & 0o777 == 0o600
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "device", filter="data")
        assert {(m.uid, m.gid, m.uname) for m in archive.getmembers()} == {(0, 0, "")}
        assert archive.getmember("kitchen").mode == 0o700
    unpacked = tmp_path / "device" / "kitchen"
    assert (unpacked / "device.key").stat().st_mode & 0o777 == 0o600
    verify(unpacked)


def test_without_models_the_digests_alone_are_there_and_the_files_can_be_put_there(cloud, pair):
    _, made = provision.device(cloud, models=False)
    assert [p for p in (made / "models").rglob("*") if p.is_file()] == []
    for name in ("pair.json", "student/config.json", "student/model.safetensors"):
        (made / "models" / "pair" / name).parent.mkdir(exist_ok=True)
        (made / "models" / "pair" / name).write_bytes((pair / name).read_bytes())
    verify(made)


def test_a_bundle_appears_whole_or_not_at_all(cloud, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "_copied", full)
    with pytest.raises(RuntimeError, match="No space left"):
        provision.device(cloud)
    assert list((cloud / "bundles").iterdir()) == []
    assert json.loads((cloud / "devices.json").read_text()) == {}


def test_the_files_of_models_are_signed_by_the_clouds_own_key(cloud):
    about = keys.signed(cloud, bundle.described({}))
    assert set(about) == {"format", "folders", "files", "certificate", "signature"}


@pytest.mark.slow
def test_a_stream_is_all_that_a_device_reads_and_has_neither_labels_nor_anything_of_the_teacher(
    settings, tmp_path
):
    provision.init(tmp_path / "cloud", settings, ["localhost"], {})
    _, made = provision.device(tmp_path / "cloud", stream=True)
    names = [p.relative_to(made).as_posix() for p in made.rglob("*") if p.is_file()]
    assert any(name.startswith("stream/streams/") for name in names)
    assert not any("teacher" in name or "labels" in name for name in names)
    config = parse({**settings, "pair.token-cache": str(made / "stream")})
    pair = {setting: str(folder) for setting, folder in verify(made).items()}
    config = parse({**flat(config), **pair})
    shared = load_shared(config.pair, config.data.name)
    own = source(config, shared, 0)
    assert len(own.items(1)) == config.run.samples_per_round
    assert own.tokens(int(own.items(1)[0])).ndim == 2
    _, plain = provision.device(tmp_path / "cloud")
    longest = longest_question(shared, load_world(config, shared))
    assert Bundle.of(plain).device.longest_question == longest > 0
    assert not (plain / "stream").exists()


def test_a_pair_without_a_transform_of_tokens_gets_it_before_its_files_are_signed(
    clip_pair_folder, clip_settings, tmp_path, capfd
):
    folder = shutil.copytree(clip_pair_folder, tmp_path / "own")
    (folder / FILE).unlink(missing_ok=True)
    config = parse(clip_settings(method="mmpg", **{"pair.folder": str(folder)}))
    parts, files, longest = bundle.device_parts(config, False)
    assert any(FILE in names for _, names in parts.values())
    assert (folder / FILE).is_file()
    assert files == {}
    assert longest > 0
