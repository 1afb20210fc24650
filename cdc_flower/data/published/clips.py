"""Clips: MSRVTT-QA (Xu et al. 2017), captions of MSR-VTT (Xu et al. 2016) and ActivityNet-QA
(arXiv 1906.02467).

Train becomes train. Test becomes test, or the validation part where there is no test part; where both are
there the validation part is left out, which a line says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from cdc_flower.data.json_arrays import objects
from cdc_flower.data.pictures import PackError
from cdc_flower.data.published.files import Part, Source, field, table

DESCRIBE = "Describe the video in one sentence."
KINDS = ("motion", "spatial", "temporal", "yes/no", "colour", "object", "location", "number", "other")
"""The `type` of a question of ActivityNet-QA -> what it asks for."""
EXACT = {"task": "exact"}


def msrvtt_qa(source: Source) -> list[Part]:
    """MSRVTT-QA; `qtype` is the first word of the question, `domain` the category of the video."""

    def rows(path: Path) -> Iterator[dict[str, Any]]:
        for _, i, one in objects(path):
            where = f"{path}: [{i}]"
            question, answer = field(one, "question", str, where), field(one, "answer", str, where)
            yield {
                "image_id": f"msrvtt/{_msrvtt(one, where)}",
                "question": question,
                "answer": answer,
                "answers": [answer],
                "qtype": question.partition(" ")[0].lower(),
                "domain": _category(one, "category_id", where) or "msrvtt-qa",
                **EXACT,
            }

    found = _parts(source, "msrvtt-qa", "{}_qa.json")
    return [Part("msrvtt-qa", split, table(rows(path)), clips=True) for split, (path,) in found]


def _msrvtt(one: Mapping[str, Any], where: str) -> str:
    """The name of a video, which is there as a number or as it is."""
    if type(one.get("video_id")) is int:
        return f"video{field(one, 'video_id', int, where)}"
    return field(one, "video_id", str, where)


def _category(one: Mapping[str, Any], name: str, where: str) -> str:
    return f"category {field(one, name, int, where)}" if one.get(name) is not None else ""


def msrvtt_captions(source: Source) -> list[Part]:
    """MSR-VTT: one question for all, with all captions of a video as its answers."""
    one_file = source.find(["MSRVTT_data.json"])
    names = ("train_val_videodatainfo.json", "test_videodatainfo.json")
    files = [one_file] if one_file else [source.need("msrvtt-captions", "MSRVTT_data.json", *names)]
    if not one_file:
        files = [path for path in map(source.find, ([name] for name in names)) if path]
    videos: dict[str, dict[str, str]] = {}
    said: dict[str, list[str]] = {}
    for path in files:
        unknown: dict[str, str] = {}
        for name, i, one in objects(path, "videos", "sentences"):
            where = f"{path}: {name}[{i}]"
            video = field(one, "video_id", str, where)
            if name == "videos":
                domain = _category(one, "category", where) or "msrvtt"
                videos[video] = {"domain": domain, "split": field(one, "split", str, where)}
            elif caption := field(one, "caption", str, where):
                said.setdefault(video, []).append(caption)
                unknown.setdefault(video, where)
        for video in unknown.keys() - videos.keys():
            raise PackError(f"{unknown[video]}: a caption of video_id '{video}', which is not in 'videos'")

    def rows(of: str) -> Iterator[dict[str, Any]]:
        for video, captions in said.items():
            if videos[video]["split"] == of:
                yield {
                    "image_id": f"msrvtt/{video}",
                    "question": DESCRIBE,
                    "answer": captions[0],
                    "answers": captions,
                    "qtype": "caption",
                    "domain": videos[video]["domain"],
                    "task": "captions",
                }

    made: dict[str, pa.Table] = {}
    for of in ("train", "validate", "test"):
        if (part := table(rows(of))).num_rows:
            made[of] = part
    if not made:
        raise PackError(f"{files[0]}: no captions of a split; allowed: train, validate, test")
    return [
        Part("msrvtt-captions", split, made[of], clips=True)
        for split, of in _chosen(source, "msrvtt-captions", list(made), "validate").items()
    ]


def activitynet_qa(source: Source) -> list[Part]:
    """ActivityNet-QA; `qtype` is one of `KINDS`."""

    def part(questions: Path, answers: Path) -> pa.Table:
        asked: dict[str, tuple[str, str]] = {}
        for _, i, one in objects(questions):
            where = f"{questions}: [{i}]"
            video = field(one, "video_name", str, where)
            asked[field(one, "question_id", str, where)] = video, field(one, "question", str, where)

        def rows() -> Iterator[dict[str, Any]]:
            for _, i, one in objects(answers):
                where = f"{answers}: [{i}]"
                number, kind = field(one, "question_id", str, where), field(one, "type", int, where)
                if number not in asked:
                    raise PackError(f"{where}: question_id '{number}' is not in {questions.name}")
                if not 0 <= kind < len(KINDS):
                    raise PackError(f"{where}: type {kind}; allowed: 0 to {len(KINDS) - 1}")
                video, question = asked[number]
                answer = field(one, "answer", str, where)
                yield {
                    "image_id": f"activitynet/v_{video.removeprefix('v_')}",
                    "question": question,
                    "answer": answer,
                    "answers": [answer],
                    "qtype": KINDS[kind],
                    "domain": "activitynet-qa",
                    **EXACT,
                }

        return table(rows())

    found = _parts(source, "activitynet-qa", "{}_q.json", "{}_a.json")
    return [Part("activitynet-qa", split, part(*files), clips=True) for split, files in found]


def _parts(source: Source, what: str, *patterns: str) -> list[tuple[str, list[Path]]]:
    """The files of train and test: ("train", files), ("test", files)."""
    there = [of for of in ("train", "val", "test") if any(source.find([p.format(of)]) for p in patterns)]
    if not there:
        source.need(what, *(patterns[0].format(of) for of in ("train", "test")))
    chosen = _chosen(source, what, there, "val")
    return [(split, [source.need(what, p.format(of)) for p in patterns]) for split, of in chosen.items()]


def _chosen(source: Source, what: str, there: list[str], validation: str) -> dict[str, str]:
    """Split of a pack -> the part of the data set that it is made of."""
    if validation in there and "test" in there:
        source.say(f"{what}: its part '{validation}' is left out, as there is 'test'")
    chosen = {"train": "train", "test": "test" if "test" in there else validation}
    return {split: of for split, of in chosen.items() if of in there}
