"""A digest is computed once for files that did not change, and anew for files that did."""

from __future__ import annotations

import os

import pytest

from cdc_flower import digests
from cdc_flower.data import packs, scenes
from cdc_flower.digests import known


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """`asked(...)`: the digest of two files, and how often any was computed. Files settle at once."""
    monkeypatch.setenv("CDC_FLOWER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "SETTLED", -1e9)
    monkeypatch.setattr(digests, "WORTH", 0)
    files = [tmp_path / name for name in ("a", "b")]
    for file in files:
        file.write_text("0")
    computed = []

    def of(what="x", files=files, **more):
        def make():
            computed.append(what)
            return "".join(f.read_text() for f in files).ljust(64, "0")

        return known(files, what, make, **more), len(computed)

    of.files = files
    return of


def test_it_is_computed_once(asked):
    first, count = asked()
    assert (first[:2], count) == ("00", 1)
    assert asked() == (first, 1)
    assert asked("y")[1] == 2  # another digest of the same files
    assert asked(files=asked.files[::-1])[1] == 3
    assert asked(fresh=True)[1] == 4


def test_a_file_that_changed_is_read_again_whatever_its_size_and_mtime(asked):
    first, _ = asked()
    before = asked.files[0].stat()
    asked.files[0].write_text("1")
    os.utime(asked.files[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert asked.files[0].stat().st_mtime_ns == before.st_mtime_ns
    second, count = asked()
    assert (second[:2], count) == ("10", 2)
    assert second != first


def test_one_that_was_put_in_its_place_is_read_again(asked, tmp_path):
    asked()
    (tmp_path / "c").write_text("2")
    (tmp_path / "c").rename(asked.files[1])
    assert asked()[0][:2] == "02"


def test_a_file_that_was_written_a_moment_ago_is_not_trusted(asked, monkeypatch):
    monkeypatch.setattr(digests, "SETTLED", 3600.0)
    assert [asked()[1] for _ in range(3)] == [1, 2, 3]


def test_what_is_in_the_cache_must_look_like_a_digest(asked, tmp_path):
    asked()
    (kept,) = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    for nonsense in (b"", b"g" * 64, b"\xff" * 64, b"0" * 65):
        kept.write_bytes(nonsense)
        assert asked()[0] == "00".ljust(64, "0")
    assert asked()[1] == 5


def test_without_a_cache_it_is_computed_each_time(asked, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CDC_FLOWER_CACHE", str(tmp_path / "file"))
    assert [asked()[1] for _ in range(2)] == [1, 2]


def test_small_files_are_not_worth_it(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "WORTH", 3)
    assert [asked()[1] for _ in range(2)] == [1, 2]
    assert not (tmp_path / "cache").exists()


def test_a_pack_is_hashed_once_and_checked_when_asked(asked, tmp_path, monkeypatch):
    made = scenes.generate(4, 4, seed=1)
    pictures = {**made.train_images, **made.test_images}
    split = [
        rows.assign(image=[pictures[name] for name in rows["image_id"]]) for rows in (made.train, made.test)
    ]
    packs.write_pack(tmp_path / "pack", *split)
    digest = packs.read_pack(tmp_path / "pack", pictures=False).digest

    def again(_):
        raise AssertionError("hashed again")

    monkeypatch.setattr(packs, "_digest", again)
    assert packs.read_pack(tmp_path / "pack", pictures=False).digest == digest
    with pytest.raises(AssertionError, match="hashed again"):
        packs.read_pack(tmp_path / "pack")
    packs.write_pack(tmp_path / "pack", *split[::-1])
    with pytest.raises(AssertionError, match="hashed again"):
        packs.read_pack(tmp_path / "pack", pictures=False)
