"""What a vision-language model is asked, under one name: prompts, batches, forward passes, answers."""

from cdc_flower.models.answer import Answers, Output, Read, answer, correct, forward, run
from cdc_flower.models.families import logits, parts
from cdc_flower.models.inputs import Inputs, Text, collate
from cdc_flower.models.pixels import as_read, grey

__all__ = [
    "Answers",
    "Inputs",
    "Output",
    "Read",
    "Text",
    "answer",
    "as_read",
    "collate",
    "correct",
    "forward",
    "grey",
    "logits",
    "parts",
    "run",
]
