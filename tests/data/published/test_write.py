"""From downloaded files to a pack: both splits, all references, pictures that are missing, flat memory."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cdc_flower.data.packs import read_pack
from cdc_flower.data.pictures import PackError
from cdc_flower.data.published import DATA_SETS
from cdc_flower.data.published.write import import_published
from tests import published_files as files


def test_a_shift_is_one_pack_of_both_data_sets(tmp_path):
    files.vqav2(tmp_path / "down")
    files.aokvqa(tmp_path / "down", train=[21, 31, 32], val=range(41, 45))  # 21 is in VQAv2's test part
    said: list[str] = []
    import_published("vqav2-aokvqa", tmp_path / "down", tmp_path / "pack", say=said.append)
    pack = read_pack(tmp_path / "pack")
    assert pack.train["task"].value_counts().to_dict() == {"vqa": 24, "aokvqa": 2}
    assert pack.test["task"].value_counts().to_dict() == {"vqa": 15, "aokvqa": 3}
    assert not set(pack.train["image_id"]) & set(pack.test["image_id"])
    assert any("vqav2: 3 of 18 test questions are left out, because their pictures" in line for line in said)
    first = pack.train["image_id"].iloc[0]
    assert pack.train_images[first] == files.jpeg(int(first.rpartition("/")[2]))
    assert len(pack.train["answers"].iloc[0]) == 10


def test_of_a_single_part_whole_pictures_are_held_out_whatever_else_there_is(tmp_path):
    files.coco(tmp_path / "down")
    files.nocaps(tmp_path / "down")
    import_published("coco-nocaps", tmp_path / "down", tmp_path / "both", test_share=0.5)
    import_published("nocaps", tmp_path / "down", tmp_path / "one", test_share=0.5)
    both, one = read_pack(tmp_path / "both"), read_pack(tmp_path / "one")
    assert set(one.test["image_id"]) == {n for n in both.test["image_id"] if n.startswith("nocaps")}
    assert len(one.train) + len(one.test) == 20
    assert 3 <= len(one.test) <= 17
    assert set(both.train["domain"]) == {"coco", "in-domain", "near-domain", "out-domain"}


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_data_set_is_imported_in_full(tmp_path, name):
    for write in (files.vqav2, files.aokvqa, files.coco, files.nocaps):
        write(tmp_path / "down")
    for write in (files.msrvtt_qa, files.msrvtt_captions, files.activitynet_qa):
        write(tmp_path / "down")
    import_published(name, tmp_path / "down", tmp_path / "pack")
    pack = read_pack(tmp_path / "pack")
    assert min(len(pack.train), len(pack.test)) > 0
    assert pack.clips == ("msrvtt" in name or "activitynet" in name)
    assert {p.suffix for p in (tmp_path / "pack").iterdir()} == {".parquet"}
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_at_most_so_many_pictures_are_taken_and_always_the_same(tmp_path):
    files.vqav2(tmp_path / "down")
    for out, count in (("a", 3), ("b", 3), ("c", 2)):
        import_published("vqav2", tmp_path / "down", tmp_path / out, pictures=count)
    a, b, c = (read_pack(tmp_path / out) for out in "abc")
    assert len(a.train_images) == len(a.test_images) == 3
    assert a.digest == b.digest
    assert set(c.train_images) < set(a.train_images)


def test_missing_pictures_are_counted_up_to_a_limit(tmp_path):
    files.coco(tmp_path / "down")
    (tmp_path / "down/train2017/000000000052.jpg").unlink()
    (tmp_path / "down/val2017/000000000062.jpg").write_bytes(b"torn")
    named = r"coco, train: 1 of 8 pictures are not in .*, first '000000000052\.jpg'; allowed: up to 1\.0%"
    with pytest.raises(PackError, match=named):
        import_published("coco", tmp_path / "down", tmp_path / "pack")
    with pytest.raises(PackError, match=r"000000000062\.jpg: not a readable picture .* 1 such .* 15\.0%"):
        import_published("coco", tmp_path / "down", tmp_path / "pack", missing=0.15)
    assert not (tmp_path / "pack").exists()
    said: list[str] = []
    import_published("coco", tmp_path / "down", tmp_path / "pack", missing=0.2, say=said.append)
    assert len(said) == 2
    assert all("questions are left out" in line for line in said)
    pack = read_pack(tmp_path / "pack")
    assert (len(pack.train), len(pack.test)) == (7, 5)


@pytest.mark.parametrize(
    ("name", "more", "named"),
    [
        ("imagenet", {}, "data set 'imagenet'; allowed: vqav2, aokvqa"),
        ("vqav2", {}, r"vqav2: 'v2_OpenEnded_mscoco_train2014_questions\.json' or 'v2_.*' is not in"),
        ("nocaps", {}, r"nocaps: 'nocaps_val_4500_captions\.json' is not in"),
        ("coco", {"test_share": 1.0}, "a test share above 0 and below 1"),
        ("coco", {"missing": 2.0}, "'missing' from 0 to 1"),
        ("coco", {"pictures": 0}, "1 picture or more"),
    ],
)
def test_what_cannot_be_imported_is_refused_in_one_line(tmp_path, name, more, named):
    files.coco(tmp_path / "down")
    with pytest.raises(PackError, match=named):
        import_published(name, tmp_path / "down", tmp_path / "pack", **more)


def test_an_import_that_breaks_off_leaves_the_old_pack(tmp_path):
    files.coco(tmp_path / "down")
    import_published("coco", tmp_path / "down", tmp_path / "pack")
    before = read_pack(tmp_path / "pack").digest

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    (tmp_path / "down/val2017/000000000062.jpg").write_bytes(b"torn")
    with pytest.raises(KeyboardInterrupt):
        import_published("coco", tmp_path / "down", tmp_path / "pack", missing=0.5, replacing=True, say=stop)
    assert read_pack(tmp_path / "pack").digest == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["down", "pack"]


PEAK = r"""
import json, re, sys
from pathlib import Path
from cdc_flower.data import shards
from cdc_flower.data.packs import read_pack
from cdc_flower.data.published.write import import_published
def peak():
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1))

shards.GROUP, shards.SHARD = 2**20, 2**24
down, count = Path(sys.argv[1]), int(sys.argv[2])
import_published("coco", down, down / "warm", pictures=50, missing=1.0, replacing=True)
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
before = peak()
import_published("coco", down, down / "pack", pictures=count, replacing=True)
pack = read_pack(down / "pack", pictures=False)
total = sum(len(picture) for picture in pack.train_images.values())
print(json.dumps([peak() - before, total >> 10]))
"""


def test_memory_does_not_grow_with_the_pictures(tmp_path):
    """Peak resident memory of an import and of reading all pictures again, above a small one [KiB]."""
    side = 200
    ids = range(1, 1201)
    picture = files.jpeg(1, side)
    names = [f"{i:012d}.jpg" for i in ids]
    for of, part in (("train", slice(0, 1150)), ("val", slice(1150, 1200))):
        files.put(tmp_path / f"captions_{of}2017.json", files.captions(ids[part], names[part]))
        for i in ids[part]:
            comment = b"\xff\xfe" + (6).to_bytes(2, "big") + i.to_bytes(4, "big")  # each differs
            files.put(tmp_path / f"{of}2017" / f"{i:012d}.jpg", picture[:2] + comment + picture[2:])
    found = []
    for count in (300, 1150):
        ran = subprocess.run(
            [sys.executable, "-c", PEAK, str(tmp_path), str(count)], capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        found.append(json.loads(ran.stdout.splitlines()[-1]))
    (small, small_bytes), (large, large_bytes) = found
    assert large_bytes - small_bytes > 20_000
    assert large - small < (large_bytes - small_bytes) / 2, found
