"""COCO captions and nocaps: all captions of a picture together, and its domain where it is known."""

import json

import pytest

from cdc_flower.data.pictures import PackError
from cdc_flower.data.published.captions import DESCRIBE, captions, nocaps
from cdc_flower.data.published.files import Source
from tests import published_files
from tests.published_files import put


def test_all_captions_of_a_picture_are_its_answers(tmp_path):
    published_files.coco(tmp_path, train=[8, 5], val=[7])
    train, test = captions(Source(tmp_path, print))
    rows = train.rows.to_pylist()
    assert [row["image_id"] for row in rows] == ["coco/000000000005", "coco/000000000008"]
    assert rows[1]["answers"] == ["A red circle in a large picture.", "the two circles of image 8"]
    assert rows[1]["answer"] == "A red circle in a large picture."
    assert (rows[1]["question"], rows[1]["domain"], rows[1]["task"]) == (DESCRIBE, "coco", "captions")
    assert (test.split, len(test.rows)) == ("test", 1)


def test_the_captions_of_2014_are_taken_where_those_of_2017_are_not(tmp_path):
    names = ["COCO_val2014_000000000007.jpg"]
    put(tmp_path / "captions_val2014.json", published_files.captions([7], names))
    (part,) = captions(Source(tmp_path, print))
    assert part.rows["image_id"].to_pylist() == ["coco/000000000007"]


def test_domains_of_nocaps_are_a_field_or_a_file_or_not_known(tmp_path):
    said = []
    published_files.nocaps(tmp_path, ids=range(3))
    (part,) = nocaps(Source(tmp_path, said.append))
    assert part.rows["domain"].to_pylist() == ["in-domain", "near-domain", "out-domain"]
    assert part.rows["image_id"].to_pylist()[2] == "nocaps/0000000000000002.jpg"
    assert said == []
    published_files.nocaps(tmp_path, ids=range(3), domains=False)
    (part,) = nocaps(Source(tmp_path, said.append))
    assert part.rows["domain"].to_pylist() == ["nocaps"] * 3
    assert len(said) == 1
    assert (
        "3 of 3 pictures have no domain (field 'domain' in images, or a file nocaps_domains.json)" in said[0]
    )
    told = [{"id": 0, "domain": "near"}, {"file_name": "0000000000000002.jpg", "domain": "out-domain"}]
    put(tmp_path / "nocaps_domains.json", told)
    (part,) = nocaps(Source(tmp_path, said.append))
    assert part.rows["domain"].to_pylist() == ["near-domain", "nocaps", "out-domain"]
    assert "1 of 3 pictures have no domain" in said[1]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda told: told["images"].pop(0), "captions of image_id 7, which is not in 'images'"),
        (
            lambda told: told["images"][0].update(domain="far"),
            r"images\[0\]: domain 'far'; allowed: in-domain",
        ),
        (lambda told: told["images"][0].pop("file_name"), r"images\[0\]: field 'file_name' is missing"),
        (lambda told: told["annotations"][3].pop("caption"), r"annotations\[3\]: field 'caption' is missing"),
        (lambda told: told.pop("annotations"), "no list 'annotations' in it"),
    ],
)
def test_what_is_not_of_the_published_form_is_named(tmp_path, change, named):
    published_files.nocaps(tmp_path, ids=[7, 8])
    path = tmp_path / "nocaps_val_4500_captions.json"
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))
    with pytest.raises(PackError, match=named):
        nocaps(Source(tmp_path, print))
