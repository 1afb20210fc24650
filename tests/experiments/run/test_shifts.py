"""The paper's two shifts, end to end: miniature files as they are downloaded, an import, a comparison."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from cdc_flower import results
from cdc_flower.config import parse
from cdc_flower.data.packs import write_pack
from cdc_flower.data.published.write import import_published
from cdc_flower.tasks import TASKS, Truths
from experiments.report.notes import notes
from experiments.report.summary import read
from experiments.report.terminal import markdown
from experiments.run import settings
from experiments.run.compare import run as compare
from tests import published_files as files

TINY = {
    "run.rounds": 2,
    "run.devices": 2,
    "run.samples-per-round": 4,
    "run.eval-every": 2,
    "data.items-per-domain": 4,
    "drift.onset": 1,
    "drift.spread": 0,
    "pair.lora-rank": 2,
    "uplink.tokens-kept": 4,
    "uplink.budget": 3000,
    "downlink.budget": 3000,
    "cloud.steps": 1,
    "cloud.batch": 4,
    "cloud.source-replay": 2,
    "cloud.confidence": 0.0,
    "fedavg.epochs": 1,
}


@pytest.fixture
def compared(tmp_path, pair_folder, monkeypatch):
    """`compared(name, methods)`: the settings and the summary of a comparison of the shift of this name."""
    monkeypatch.setenv("CDC_FLOWER_CACHE", str(tmp_path / "cache"))
    for write in (files.vqav2, files.aokvqa, files.coco, files.nocaps):
        write(tmp_path / "down")

    def run(name: str, methods):
        pack = tmp_path / name
        import_published(name, tmp_path / "down", pack, test_share=0.4)
        sets = {**TINY, "pair.folder": str(pair_folder)}
        found, preset = settings.resolve(str(pack), None, [f"{key}={value}" for key, value in sets.items()])
        assert preset == name
        made = compare(found, methods, 1, tmp_path / "out", 0, progress=False)
        assert made.status == "completed", made.index["failed"]
        return found, json.loads((tmp_path / "out" / "summary.json").read_text()), tmp_path / "out"

    return run


def test_vqav2_to_aokvqa_is_a_shift_of_questions_judged_by_both_metrics(compared):
    found, summary, out = compared("vqav2-aokvqa", ("static", "cdc"))
    assert parse(found).data.task == "by-row"
    for method in summary["methods"].values():
        assert set(method["accuracy"]) == {"source", "question"}
        assert all(0 <= worth <= 1 for worth in method["accuracy"].values())
    heard = results.read(out / "runs" / "cdc-0").rounds
    heard = heard[heard["kind"] == "prequential"]
    assert heard.groupby("round")["n"].sum().tolist() == [8, 8]


def test_coco_to_nocaps_is_a_shift_of_objects_judged_by_cider_with_bleu_beside(compared):
    _, summary, out = compared("coco-nocaps", ("cdc", "fedavg_lora"))
    assert set(summary["methods"]["cdc"]["accuracy"]) == {"source", "object"}
    run = results.read(out / "runs" / "cdc-0")
    assert run.config["pair.max-answer-tokens"] == 24
    assert {"BLEU-4 source", "BLEU-4 object"} <= set(run.metrics["name"])
    assert run.metrics[run.metrics["name"] == "BLEU-4 source"]["round"].tolist() == [0, 2]
    assert len(run.pictures) > 0, "captions of many words go up and are answered by the teacher"
    made = read(out)
    said = "\n".join(notes(made))
    assert "What is counted is CIDEr; all of it times 100." in said
    assert "BLEU-4 object: cdc " in said
    assert "CIDEr domain coco: cdc " in said
    assert "SPICE: not computed here" in said
    assert "CIDEr source" in markdown(made)
    page = (out / "report.html").read_text()
    assert "CIDEr times 100 over rounds" in page
    assert "CIDEr x 100" in page, "on the charts"


@pytest.mark.packs
def test_captions_of_a_real_pack_are_judged_end_to_end(tmp_path, pair_folder, packs_folder, monkeypatch):
    """Handwritten letters and what was written of them: the last frame of each clip is the picture.

    Long answers are distilled as words and as logits.
    """
    if not (packs_folder / "penstrokes").is_dir():
        pytest.skip(f"no data pack penstrokes in {packs_folder}")
    monkeypatch.setenv("CDC_FLOWER_CACHE", str(tmp_path / "cache"))
    parts = []
    for split in ("train", "test"):
        path = packs_folder / "penstrokes" / f"{split}.parquet"
        with pq.ParquetFile(path, read_dictionary=["frames.list.element"]) as file:
            table = file.read()
        told = np.flatnonzero(np.array(table["qtype"].to_pylist()) == "caption")
        told = table.take(told[:: len(told) // 40])
        frame = told.drop_columns(["frames"]).to_pandas()
        frame["image"] = [clip[-1] for clip in told["frames"].to_pylist()]
        frame["answers"] = [[answer, answer.upper()] for answer in frame["answer"]]
        parts.append(frame.rename(columns={"clip_id": "image_id"}))
    write_pack(tmp_path / "letters", *parts)
    known = sorted(set(parts[0]["domain"]) & set(parts[1]["domain"]))[0]
    shift = {"data.task": "captions", "data.object-column": "domain", "data.known-objects": known}
    limits = {"drift.axes": "object", "pair.max-answer-tokens": 24, "pair.folder": str(pair_folder)}
    short = {"run.rounds": 1, "data.pack": str(tmp_path / "letters")}
    base = {**TINY, **shift, **limits, **short}
    levels = {"words": "ce", "logits": "kl"}
    arms = {name: {"cloud.losses": losses} for name, losses in levels.items()}
    made = compare(base, arms, 1, tmp_path / "out", 0, progress=False)
    assert made.status == "completed", made.index["failed"]
    for name, losses in levels.items():
        metrics = results.read(tmp_path / "out" / "runs" / f"{name}-0").metrics
        taught = metrics[metrics["name"].str.startswith("loss_")]
        assert set(taught["name"]) == {f"loss_{losses}"}
        assert np.isfinite(taught["value"]).all()
    worth = TASKS["captions"].fit(Truths(parts[1]))
    truths = Truths(parts[1])
    assert 5 < np.mean([worth(truth.answer, truth) for truth in truths]) <= 10
    assert "BLEU-4 source: words " in "\n".join(notes(made))
