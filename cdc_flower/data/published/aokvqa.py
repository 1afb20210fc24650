"""A-OKVQA (arXiv 2206.01718): a list of questions with four choices and ten direct answers each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cdc_flower.data.json_arrays import objects
from cdc_flower.data.pictures import PackError
from cdc_flower.data.published.files import Part, Source, coco, field, table, texts


def aokvqa(source: Source) -> list[Part]:
    """A-OKVQA, direct answers: without the questions that are marked as difficult to answer so."""

    def row(one: Mapping[str, Any], where: str) -> dict[str, Any] | None:
        if field(one, "difficult_direct_answer", bool, where):
            return None
        answers = texts(one, "direct_answers", where)
        question, most = field(one, "question", str, where), Counter(answers).most_common(1)[0][0]
        return {"question": question, "answers": answers, "answer": most, "task": "aokvqa"}

    return _aokvqa(source, row)


def aokvqa_choice(source: Source) -> list[Part]:
    """A-OKVQA, multiple choice: the choices are in the words of the question."""

    def row(one: Mapping[str, Any], where: str) -> dict[str, Any]:
        choices, right = texts(one, "choices", where), field(one, "correct_choice_idx", int, where)
        if not 0 <= right < len(choices):
            raise PackError(f"{where}: field 'correct_choice_idx' = {right} of {len(choices)} choices")
        return {
            "question": f"{field(one, 'question', str, where)} Choices: {', '.join(choices)}.",
            "answers": [choices[right]],
            "answer": choices[right],
            "task": "aokvqa-choice",
        }

    return _aokvqa(source, row)


def _aokvqa(source: Source, row: Callable[[Mapping[str, Any], str], dict[str, Any] | None]) -> list[Part]:
    parts = []
    for split, (path,) in source.splits("aokvqa", "aokvqa_v1p0_{}.json"):
        left_out = 0

        def rows(path: Path = path) -> Iterator[dict[str, Any]]:
            nonlocal left_out
            for _, i, one in objects(path):
                where = f"{path}: [{i}]"
                found = row(one, where)
                if found is None:
                    left_out += 1
                    continue
                about = {"qtype": "knowledge", "domain": "aokvqa", "choices": texts(one, "choices", where)}
                yield {**about, "image_id": coco(field(one, "image_id", int, where)), **found}

        parts.append(Part("aokvqa", split, table(rows())))
        if left_out:
            source.say(f"{path.name}: {left_out} questions have difficult_direct_answer and are left out")
    return parts
