"""Importers: a folder with a JSONL file, and a `datasets` dataset, become a pack that the reader accepts."""

import io
import json
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from cdc_flower.data.importers import from_datasets, from_jsonl
from cdc_flower.data.packs import read_pack
from cdc_flower.data.pictures import PackError


def picture(value: int) -> Image.Image:
    return Image.fromarray(np.full((5, 4, 3), value, dtype=np.uint8))


def encoded(value: int, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    picture(value).save(stream, kind)
    return stream.getvalue()


def folder_of(tmp_path: Path, lines: list[object], name: str = "questions.jsonl") -> Path:
    """Four pictures in a subfolder and the given lines."""
    folder = tmp_path / "source"
    (folder / "pics").mkdir(parents=True)
    for i in range(4):
        (folder / "pics" / f"{i}.png").write_bytes(encoded(i))
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def line(i: int, **more: object) -> dict[str, object]:
    return {"image": f"pics/{i}.png", "question": f"how many, {i}?", "answer": str(i)} | more


def test_a_jsonl_folder_becomes_a_pack_with_the_same_picture_bytes(tmp_path):
    first = line(0, split="train", qtype="count", user="ann")
    lines = [first, line(0, question="again?"), "", line(1), line(2, split="test", answer=7)]
    source = folder_of(tmp_path, lines)
    from_jsonl(source, tmp_path / "pack")
    pack = read_pack(tmp_path / "pack")
    assert pack.train["image_id"].tolist() == ["pics/0.png", "pics/0.png", "pics/1.png"]
    assert pack.train["qtype"].tolist() == ["count", "", ""]
    assert pack.train["user"].tolist() == ["ann", "", ""]
    assert pack.test["answer"].tolist() == ["7"]
    assert pack.train_images == {f"pics/{i}.png": encoded(i) for i in (0, 1)}
    assert "split" not in pack.train.columns


def test_a_mapping_renames_fields_and_keeps_further_ones(tmp_path):
    source = folder_of(
        tmp_path,
        [
            {"file": f"pics/{i}.png", "q": "what?", "said": ["owl", "cat", "cat"], "animal": f"a{i}"}
            for i in range(4)
        ],
    )
    mapping = {"image": "file", "question": "q", "answer": "said", "concept": "animal"}
    from_jsonl(source, tmp_path / "pack", mapping=mapping)
    pack = read_pack(tmp_path / "pack")
    assert set(pack.train["answer"]) == {"cat"}, "of a list of answers, the most frequent"
    assert pack.train["answers"].tolist() == [["owl", "cat", "cat"]] * len(pack.train), "and all of them"
    assert set(pack.train["concept"]) | set(pack.test["concept"]) == {"a0", "a1", "a2", "a3"}


def test_rows_with_one_answer_have_it_as_their_only_reference_where_others_have_lists(tmp_path):
    lines = [line(0, answer=["a", "b"], choices=["a", "c"]), line(1, choices=[]), line(2, choices=["d"])]
    source = folder_of(tmp_path, [{**one, "split": split} for one in lines for split in ("train", "test")])
    from_jsonl(source, tmp_path / "pack", mapping={"choices": "choices"})
    pack = read_pack(tmp_path / "pack")
    assert pack.train["answers"].tolist() == [["a", "b"], ["1"], ["2"]]
    assert pack.train["choices"].tolist() == [["a", "c"], [], ["d"]]


@pytest.mark.parametrize("way", ["absolute", "link"])
def test_a_picture_outside_of_the_folder_is_refused_however_it_is_reached(way, tmp_path):
    source = folder_of(tmp_path, [])
    inside = sorted((source / "pics").iterdir())[0]
    outside = tmp_path / "secret.png"
    outside.write_bytes(inside.read_bytes())
    (source / "link.png").symlink_to(outside)
    name = str(outside) if way == "absolute" else "link.png"
    (source / "questions.jsonl").write_text(json.dumps(line(0, image=name)) + "\n")
    with pytest.raises(PackError, match="is outside of the source folder"):
        from_jsonl(source, tmp_path / "out")


def test_without_a_test_split_whole_pictures_are_held_out_by_seed(tmp_path):
    source = folder_of(tmp_path, [line(i % 4, question=f"q{i}") for i in range(12)])
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        from_jsonl(source, tmp_path / out, test_share=0.5, seed=seed)
    a, b, c = (read_pack(tmp_path / name) for name in "abc")
    assert len(a.train_images) == len(a.test_images) == 2
    assert not set(a.train_images) & set(a.test_images)
    assert a.digest == b.digest != c.digest


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ([line(0), "{not json"], ["line 2", "not JSON"]),
        ([line(0), ["a", "list"]], ["line 2", "one JSON object"]),
        ([line(0), "", {"image": "pics/1.png", "question": "q"}], ["line 3", "'answer'", "image, question"]),
        ([line(0), line(1, answer=" ")], ["line 2", "'answer'", "empty"]),
        ([line(0), line(1, answer=["a", 1])], ["line 2", "'answer'", "list of texts"]),
        ([line(0), line(1, answer={"a": 1})], ["line 2", "'answer'", "dict"]),
        ([line(0), line(9)], ["line 2", "pics/9.png", "not there"]),
        ([line(0), line(1, image="../../etc/passwd")], ["line 2", "outside"]),
        (
            [line(0), line(1, image="questions.jsonl")],
            ["line 2", "questions.jsonl", "not a readable picture"],
        ),
        ([line(0), line(1, split="dev")], ["line 2", "'dev'", "train, test"]),
        ([line(0), line(1, answer="x" * 1007)], ["column 'answer'", "1007 characters", "1000"]),
        ([line(0), line(1, image="a\0.png")], ["line 2", r"picture 'a\x00.png' is no path"]),
        ([line(0), line(1, image="\ud800.png")], ["line 2", r"picture '\ud800.png' is no path"]),
        ([line(0), line(1, question="who \ud800?")], ["line 2", "'question'", r"\ud800 at character 4"]),
        ([line(0), line(1, answer=["a", "\ud800"])], ["line 2", "'answers'", r"\ud800 at character 0"]),
        ([line(0), line(1, thing="\ud800")], ["line 2", "'thing'", "allowed: what UTF-8 can hold"]),
        ([line(0, split="test"), line(1, split="test")], ["no line is of train"]),
        ([line(0)], ["no test split", "1 pictures", "2"]),
        ([], ["no rows"]),
    ],
    ids=[
        "json",
        "object",
        "field",
        "empty",
        "mixed",
        "dict",
        "absent",
        "outside",
        "text",
        "split",
        "long",
        "null character",
        "surrogate in a path",
        "surrogate",
        "surrogate in a list",
        "surrogate in a further field",
        "all test",
        "one",
        "none",
    ],
)
def test_a_bad_line_is_refused_by_its_number(tmp_path, lines, named):
    source = folder_of(tmp_path, lines)
    with pytest.raises(PackError) as error:
        from_jsonl(source, tmp_path / "pack")
    for part in named:
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    str(error.value).encode()
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize(("column", "field"), [("domain", "styl"), ("split", "part"), ("concept", "animal")])
def test_a_mapping_of_a_field_that_no_line_has_is_refused_with_those_that_there_are(tmp_path, column, field):
    source = folder_of(tmp_path, [line(0), line(1, style="flat")])
    with pytest.raises(
        PackError, match=rf"'{field}' .*column '{column}'.*: image, question, answer"
    ) as caught:
        from_jsonl(source, tmp_path / "pack", mapping={column: field})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pack").exists()
    from_jsonl(source, tmp_path / "pack", mapping={"domain": "style"}, test_share=0.5)  # one line has it


def test_a_csv_file_does_as_well(tmp_path):
    rows = [
        "image,question,answer,style",
        "pics/0.png,what?,a,flat",
        "pics/1.png,what?,b,",
        "pics/2.png,what?,c,flat",
    ]
    source = folder_of(tmp_path, rows, "questions.csv")
    from_jsonl(source, tmp_path / "pack", mapping={"domain": "style"}, test_share=0.4)
    pack = read_pack(tmp_path / "pack")
    found = {(row.answer, row.domain) for part in (pack.train, pack.test) for row in part.itertuples()}
    assert found == {("a", "flat"), ("b", ""), ("c", "flat")}


def test_the_jsonl_file_must_be_clear(tmp_path):
    source = folder_of(tmp_path, [line(i) for i in range(4)])
    (source / "more.jsonl").write_text("")
    with pytest.raises(PackError, match=r"2 files named \*\.csv or \*\.jsonl \(more\.jsonl, q"):
        from_jsonl(source, tmp_path / "pack")
    from_jsonl(source, tmp_path / "pack", jsonl="questions.jsonl")
    with pytest.raises(PackError, match="no such file"):
        from_jsonl(source, tmp_path / "pack", jsonl="other.jsonl")
    with pytest.raises(PackError, match="no such folder"):
        from_jsonl(tmp_path / "nowhere", tmp_path / "pack")


def table(count: int = 6) -> dict[str, list]:
    return {"question": [f"q{i}" for i in range(count)], "answer": [i % 2 for i in range(count)]}


def saved(tmp_path: Path, data: datasets.Dataset | datasets.DatasetDict) -> str:
    data.save_to_disk(str(tmp_path / "hf"))
    return str(tmp_path / "hf")


@pytest.mark.parametrize("form", ["feature", "pil", "bytes", "path"])
def test_a_saved_dataset_becomes_a_pack_from_any_form_of_picture(tmp_path, form):
    paths = [tmp_path / f"{i}.jpg" for i in range(6)]
    for i, path in enumerate(paths):
        path.write_bytes(encoded(i, "JPEG"))
    pictures = {
        "feature": [str(p) for p in paths],
        "path": [str(p) for p in paths],
        "bytes": [encoded(i, "JPEG") for i in range(6)],
        "pil": [picture(i) for i in range(6)],
    }[form]
    data = datasets.Dataset.from_dict(table() | {"photo": pictures})
    if form == "feature":
        data = data.cast_column("photo", datasets.Image())
    from_datasets(saved(tmp_path, data), tmp_path / "pack", {"image": "photo"}, test_share=0.34)
    pack = read_pack(tmp_path / "pack")
    assert (len(pack.train), len(pack.test)) == (4, 2)
    assert set(pack.train["answer"]) <= {"0", "1"}
    kept = {**pack.train_images, **pack.test_images}
    assert len(kept) == 6, "the image_id tells the pictures apart"
    if form != "pil":
        assert set(kept.values()) == {encoded(i, "JPEG") for i in range(6)}, "encoded bytes are kept"
    else:
        colours = {Image.open(io.BytesIO(data)).convert("RGB").getpixel((0, 0)) for data in kept.values()}
        assert colours == {(i, i, i) for i in range(6)}


def test_splits_labels_and_limits_of_a_dataset(tmp_path):
    label = datasets.ClassLabel(names=["owl", "cat"])

    def part(first: int) -> datasets.Dataset:
        data = datasets.Dataset.from_dict(
            table()
            | {
                "image": [encoded(first + i // 2) for i in range(6)],
                "name": [f"n{first + i // 2}" for i in range(6)],
            }
        )
        return data.cast_column("answer", label)

    name = saved(tmp_path, datasets.DatasetDict({"train": part(0), "validation": part(10), "test": part(20)}))
    from_datasets(name, tmp_path / "a", {"image_id": "name"}, limit=4)
    pack = read_pack(tmp_path / "a")
    assert pack.train["answer"].tolist() == ["owl", "cat", "owl", "cat"]
    assert pack.train["image_id"].tolist() == ["n0", "n0", "n1", "n1"]
    assert set(pack.test["image_id"]) == {"n20", "n21"}
    from_datasets(name, tmp_path / "b", {"image_id": "name"}, test_split="validation")
    assert set(read_pack(tmp_path / "b").test["image_id"]) == {"n10", "n11", "n12"}
    with pytest.raises(PackError, match="no split 'dev'; allowed: train, validation, test"):
        from_datasets(name, tmp_path / "c", test_split="dev")


def test_a_dataset_without_a_needed_field_is_refused_naming_its_fields(tmp_path):
    name = saved(tmp_path, datasets.Dataset.from_dict(table() | {"image": [encoded(i) for i in range(6)]}))
    with pytest.raises(PackError, match=r"'reply' \(for column 'answer'\); allowed: question, answer, image"):
        from_datasets(name, tmp_path / "pack", {"answer": "reply"})
    with pytest.raises(PackError, match="column 'image': int found"):
        from_datasets(name, tmp_path / "pack", {"image": "answer"})


def test_a_cell_without_a_value_is_refused_by_its_row(tmp_path):
    cells = table() | {"image": [encoded(i) for i in range(6)]}
    cells["answer"][3] = None
    name = saved(tmp_path, datasets.Dataset.from_dict(cells))
    with pytest.raises(PackError, match=r"split 'train': row 3: field 'answer'"):
        from_datasets(name, tmp_path / "pack")


def test_what_cannot_be_opened_is_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PackError, match="cannot be opened") as error:
        from_datasets(str(tmp_path / "empty"), tmp_path / "pack")
    assert "\n" not in str(error.value)

    def offline(name: str, subset: str | None) -> None:
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub\nmore")

    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", offline)
    with pytest.raises(PackError, match="cannot be opened: Couldn't reach 'some/where' on the Hub; allowed"):
        from_datasets("some/where", tmp_path / "pack")
