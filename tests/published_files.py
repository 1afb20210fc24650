"""Miniature files of published data sets, in exactly the form in which they are downloaded."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from tests.videos import video

NOISE = {"info": {"year": 2017, "list": [[1], {"a": "]"}]}, "licenses": [{"id": 1}], "data_type": "mscoco"}
"""What the files hold beside what is read."""


def jpeg(value: int, side: int = 12) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(value).integers(0, 256, (side, side, 3))
    Image.fromarray(noise.astype(np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def put(path: Path, data: bytes | Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())


@cache
def _three_frames() -> bytes:
    with TemporaryDirectory() as folder:
        return video(Path(folder) / "a.mp4", 3).read_bytes()


def vqa_answers(texts: Sequence[str]) -> list[dict[str, Any]]:
    return [{"answer_id": i, "answer": t, "answer_confidence": "yes"} for i, t in enumerate(texts, start=1)]


def vqav2(root: Path, train: Sequence[int] = range(1, 9), val: Sequence[int] = range(21, 27)) -> None:
    """Three questions about each picture, one of each kind of answer."""
    for of, ids in (("train", train), ("val", val)):
        questions, annotations = [], []
        for image in ids:
            for k, (asked, kind, texts) in enumerate(
                (
                    ("is it a circle?", "yes/no", ["yes"] * 9 + ["no"]),
                    ("how many circles?", "number", ["2"] * 6 + ["two"] * 3 + ["3"]),
                    ("what is it?", "other", ["a circle"] * 8 + ["ball", "round thing"]),
                )
            ):
                number = image * 1000 + k
                questions.append({"question_id": number, "image_id": image, "question": asked})
                annotations.append(
                    {
                        "question_id": number,
                        "image_id": image,
                        "question_type": asked.rsplit(" ", 1)[0],
                        "answer_type": kind,
                        "answers": vqa_answers(texts),
                        "multiple_choice_answer": texts[0],
                    }
                )
            put(root / f"{of}2014" / f"COCO_{of}2014_{image:012d}.jpg", jpeg(image))
        put(root / f"v2_OpenEnded_mscoco_{of}2014_questions.json", {**NOISE, "questions": questions})
        put(root / f"v2_mscoco_{of}2014_annotations.json", {"annotations": annotations[::-1], **NOISE})


def aokvqa(root: Path, train: Sequence[int] = range(31, 37), val: Sequence[int] = range(41, 45)) -> None:
    """One question about each picture, every third of them difficult to answer directly."""
    for of, ids in (("train", train), ("val", val)):
        put(
            root / "aokvqa" / f"aokvqa_v1p0_{of}.json",
            [
                {
                    "split": of,
                    "image_id": image,
                    "question_id": f"q{image}",
                    "question": "what is it for?",
                    "choices": ["play", "red", "circle", "two"],
                    "correct_choice_idx": 2,
                    "direct_answers": ["circle"] * 5 + ["red"] * 3 + ["square"] * 2,
                    "difficult_direct_answer": i % 3 == 2,
                    "rationales": ["because"] * 3,
                }
                for i, image in enumerate(ids)
            ],
        )
        for image in ids:
            put(root / "coco" / f"{of}2017" / f"{image:012d}.jpg", jpeg(image))


def captions(ids: Sequence[int], files: Sequence[str], **fields: Sequence[Any]) -> dict[str, Any]:
    """A captions file: two captions of each picture, those of different pictures mixed."""
    images = [
        {"license": 1, "file_name": name, "id": i, **{k: v[n] for k, v in fields.items()}}
        for n, (i, name) in enumerate(zip(ids, files, strict=True))
    ]
    told = [
        {"image_id": i, "id": 10 * i + k, "caption": text}
        for k, text in enumerate(("A red circle in a large picture. ", "the two circles of image {}"))
        for i in ids
        for text in [text.format(i)]
    ]
    return {**NOISE, "images": images, "annotations": told}


def coco(root: Path, train: Sequence[int] = range(51, 59), val: Sequence[int] = range(61, 67)) -> None:
    for of, ids in (("train", train), ("val", val)):
        names = [f"{i:012d}.jpg" for i in ids]
        put(root / "annotations" / f"captions_{of}2017.json", captions(ids, names))
        for i, name in zip(ids, names, strict=True):
            put(root / f"{of}2017" / name, jpeg(i))


def nocaps(root: Path, ids: Sequence[int] = range(20), domains: bool = True) -> None:
    names = [f"{i:016x}.jpg" for i in ids]
    fields = {"domain": [("in", "near-domain", "out-domain")[i % 3] for i in ids]} if domains else {}
    told = captions(ids, names, open_images_id=[n[:-4] for n in names], **fields)
    put(root / "nocaps_val_4500_captions.json", told)
    for i, name in zip(ids, names, strict=True):
        put(root / "nocaps" / name, jpeg(100 + i))


def msrvtt_qa(root: Path, **parts: Sequence[int]) -> None:
    """Two questions about each video of each part, whose videos have a number."""
    for of, ids in (parts or {"train": range(4), "val": range(4, 6), "test": range(6, 9)}).items():
        told = [
            {"answer": answer, "category_id": i % 3, "id": 10 * i + k, "question": asked, "video_id": i}
            for i in ids
            for k, (asked, answer) in enumerate((("What is it?", "dog"), ("who is running?", "man")))
        ]
        put(root / "qa" / f"{of}_qa.json", told)
        for i in ids:
            put(root / "videos" / f"video{i}.mp4", _three_frames())


def msrvtt_captions(root: Path, one_file: bool = True) -> None:
    """Two captions of each video, those of different videos mixed; in one file or in two."""
    split = dict(enumerate(["train"] * 4 + ["validate"] * 2 + ["test"] * 3))
    parts = {"MSRVTT_data.json": (*split,)}
    if not one_file:
        parts = {"train_val_videodatainfo.json": range(6), "test_videodatainfo.json": range(6, 9)}
    for name, ids in parts.items():
        videos = [
            {
                "category": i % 3,
                "video_id": f"video{i}",
                "start time": 0.5,
                "end time": 9.0,
                "split": split[i],
            }
            for i in ids
        ]
        told = [
            {"sen_id": 10 * i + k, "video_id": f"video{i}", "caption": text.format(i)}
            for k, text in enumerate(("a dog runs ", "video {} of a man"))
            for i in ids
        ]
        put(root / name, {"sentences": told, **NOISE, "videos": videos})
    for i in split:
        put(root / "videos" / f"video{i}.mp4", _three_frames())


def activitynet_qa(root: Path) -> None:
    """A question of each of the nine kinds about each video; answers in another order than questions."""
    for of, names in (("train", "abcd"), ("val", "e"), ("test", "fg")):
        asked = [
            {"video_name": name, "question": f"what of {kind}", "question_id": f"{name}_{kind}"}
            for name in names
            for kind in range(9)
        ]
        told = [
            {"answer": "yes", "type": kind, "question_id": f"{name}_{kind}"}
            for kind in range(9)
            for name in names
        ]
        put(root / "dataset" / f"{of}_q.json", asked)
        put(root / "dataset" / f"{of}_a.json", told)
        for name in names:
            put(root / "clips" / f"v_{name}.{'mkv' if name in 'af' else 'mp4'}", _three_frames())
