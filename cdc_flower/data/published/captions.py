"""COCO captions (arXiv 1504.00325) and nocaps (arXiv 1812.08658): one question for all, with all captions of
a picture as its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cdc_flower.data.json_arrays import objects
from cdc_flower.data.pictures import PackError
from cdc_flower.data.published.files import PUBLISHED, SCHEMA, Part, Source, coco, field, table

DESCRIBE = "Describe the picture in one sentence."


def captions(source: Source) -> list[Part]:
    """COCO captions, of 2017 or 2014; one question for all, with all captions of a picture as its answers."""
    year = 2017 if source.find([f"captions_{of}2017.json" for of in PUBLISHED.values()]) else 2014
    found = source.splits("coco", f"captions_{{}}{year}.json")

    def about(one: Mapping[str, Any], where: str) -> dict[str, Any]:
        return {"image_id": coco(field(one, "id", int, where)), "domain": "coco"}

    return [Part("coco", split, _captions(path, about)) for split, (path,) in found]


def nocaps(source: Source) -> list[Part]:
    """nocaps, whose validation part alone has captions; `domain` is in-domain, near-domain or out-domain, or
    "nocaps" where that is not known.
    """
    path = source.need("nocaps", "nocaps_val_4500_captions.json")
    known, unknown = _domains(source.find(["nocaps_domains.json"])), 0

    def about(one: Mapping[str, Any], where: str) -> dict[str, Any]:
        nonlocal unknown
        name = field(one, "file_name", str, where).rpartition("/")[2]
        domain = one.get("domain") or known.get(str(one.get("id"))) or known.get(name)
        unknown += domain is None
        return {"image_id": f"nocaps/{name}", "domain": _nocaps_domain(domain, where)}

    rows = _captions(path, about)
    if unknown:
        source.say(
            f"{path.name}: {unknown} of {len(rows)} pictures have no domain (field 'domain' in images, or a "
            "file nocaps_domains.json); their scores are not told apart"
        )
    return [Part("nocaps", "test", rows)]


def _domains(side: Path | None) -> dict[str, str]:
    """Picture, by its number or its file's name -> domain; from a list of {"id" or "file_name", "domain"}."""
    if side is None:
        return {}
    return {
        str(one.get("id", one.get("file_name"))): field(one, "domain", str, f"{side}: [{i}]")
        for _, i, one in objects(side)
    }


def _nocaps_domain(found: Any, where: str) -> str:
    if found is None:
        return "nocaps"
    short = str(found).removesuffix("-domain")
    if short not in ("in", "near", "out"):
        raise PackError(f"{where}: domain {found!r}; allowed: in-domain, near-domain, out-domain")
    return f"{short}-domain"


def _captions(path: Path, about: Callable[[Mapping[str, Any], str], dict[str, Any]]) -> pa.Table:
    pictures: dict[int, dict[str, Any]] = {}

    def said() -> Iterator[dict[str, Any]]:
        for name, i, one in objects(path, "images", "annotations"):
            where = f"{path}: {name}[{i}]"
            if name == "images":
                pictures[field(one, "id", int, where)] = about(one, where)
            elif text := field(one, "caption", str, where):
                yield {"id": field(one, "image_id", int, where), "caption": text}

    rows = table(said(), pa.schema([("id", pa.int64()), ("caption", pa.string())]))
    rows = rows.take(np.argsort(rows["id"].to_numpy(), kind="stable"))
    ids, first = np.unique(rows["id"].to_numpy(), return_index=True)
    lost = [int(i) for i in ids if int(i) not in pictures]
    if lost:
        raise PackError(f"{path}: captions of image_id {lost[0]}, which is not in 'images'")
    texts = pa.concat_arrays(rows["caption"].chunks)
    offsets = pa.array([*first.tolist(), len(texts)], pa.int32())
    columns: dict[str, Any] = {name: [pictures[int(i)][name] for i in ids] for name in ("image_id", "domain")}
    columns |= {"answer": texts.take(pa.array(first)), "answers": pa.ListArray.from_arrays(offsets, texts)}
    columns |= {"choices": [[]] * len(ids)}
    fixed = {"question": DESCRIBE, "qtype": "caption", "task": "captions", "user": "", "question_type": ""}
    columns |= {name: [value] * len(ids) for name, value in fixed.items()}
    return pa.table(columns, SCHEMA)
