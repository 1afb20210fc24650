"""Importers of VQAv2, A-OKVQA, COCO captions and nocaps, and of clips MSRVTT-QA, MSR-VTT captions and
ActivityNet-QA, from the files exactly as they are downloaded.

All reference answers and captions are kept. A data set with a published train and a validation part keeps
them as train and test; of one that has only one of them (nocaps has captions of its validation part alone)
pictures are held out. Two data sets make a shift, those of arXiv 2312.16279: VQAv2 -> A-OKVQA and COCO ->
nocaps.
"""

from __future__ import annotations

from collections.abc import Callable

from cdc_flower.data.published.aokvqa import aokvqa, aokvqa_choice
from cdc_flower.data.published.captions import captions, nocaps
from cdc_flower.data.published.clips import activitynet_qa, msrvtt_captions, msrvtt_qa
from cdc_flower.data.published.files import Part, Source
from cdc_flower.data.published.vqav2 import vqav2

DATA_SETS: dict[str, tuple[Callable[[Source], list[Part]], ...]] = {
    "vqav2": (vqav2,),
    "aokvqa": (aokvqa,),
    "aokvqa-choice": (aokvqa_choice,),
    "coco": (captions,),
    "nocaps": (nocaps,),
    "vqav2-aokvqa": (vqav2, aokvqa),
    "vqav2-aokvqa-choice": (vqav2, aokvqa_choice),
    "coco-nocaps": (captions, nocaps),
    "msrvtt-qa": (msrvtt_qa,),
    "msrvtt-captions": (msrvtt_captions,),
    "msrvtt-qa-captions": (msrvtt_qa, msrvtt_captions),
    "activitynet-qa": (activitynet_qa,),
}
"""Name -> what is read, in this order."""
