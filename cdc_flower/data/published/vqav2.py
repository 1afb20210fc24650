"""VQAv2 (arXiv 1612.00837): questions and annotations in two files, ten answers to each question."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cdc_flower.data.json_arrays import objects
from cdc_flower.data.pictures import PackError
from cdc_flower.data.published.files import SCHEMA, Part, Source, coco, field, table


def vqav2(source: Source) -> list[Part]:
    """VQAv2: ten answers each; `qtype` is the kind of answer, `question_type` the first words."""
    names = "v2_OpenEnded_mscoco_{}2014_questions.json", "v2_mscoco_{}2014_annotations.json"
    found = source.splits("vqav2", *names)
    return [Part("vqav2", split, _vqav2(questions, told)) for split, (questions, told) in found]


def _vqav2(questions: Path, told: Path) -> pa.Table:
    asked = pa.schema([("id", pa.int64()), ("image_id", pa.string()), ("question", pa.string())])

    def ask() -> Iterator[dict[str, Any]]:
        for name, i, one in objects(questions, "questions"):
            where = f"{questions}: {name}[{i}]"
            yield {
                "id": field(one, "question_id", int, where),
                "image_id": coco(field(one, "image_id", int, where)),
                "question": field(one, "question", str, where),
            }

    def tell() -> Iterator[dict[str, Any]]:
        for name, i, one in objects(told, "annotations"):
            where = f"{told}: {name}[{i}]"
            given = field(one, "answers", list, where)
            answers = [
                field(a if isinstance(a, dict) else {}, "answer", str, f"{where}: answers[{j}]")
                for j, a in enumerate(given)
            ]
            yield {
                "id": field(one, "question_id", int, where),
                "answer": field(one, "multiple_choice_answer", str, where),
                "answers": [answer for answer in answers if answer],
                "qtype": field(one, "answer_type", str, where),
                "question_type": field(one, "question_type", str, where),
                "domain": "vqav2",
                "task": "vqa",
            }

    first = table(ask(), asked)
    rows = table(tell(), SCHEMA.append(pa.field("id", pa.int64())))
    lookup: Any = pc  # its functions are made when it is imported, unseen by type checkers
    at = lookup.index_in(rows["id"], first["id"])
    if at.null_count:
        lost = rows["id"].filter(at.is_null())[0].as_py()
        raise PackError(f"{told}: question_id {lost} is not in {questions.name}")
    for column in ("image_id", "question"):
        rows = rows.set_column(rows.schema.get_field_index(column), column, first[column].take(at))
    return rows.select(SCHEMA.names)
