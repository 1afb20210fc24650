"""An agent loads neither PyTorch's compiler nor sympy nor scipy's optimisers; who asks for them gets them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from tests import tiny

BEGIN = """
import json, sys, torch, torch.distributed
before = torch.compile, torch.compiler.disable, torch.distributed.is_available
import clients.device.start
assert before == (torch.compile, torch.compiler.disable, torch.distributed.is_available)
assert {"bitsandbytes", "peft", "transformers.modeling_utils"} <= set(sys.modules)
UNWANTED = "torch._dynamo", "torch._inductor", "torch.distributed.tensor", "sympy", "scipy.optimize"
def loaded():
    return [name for name in UNWANTED if name in sys.modules]
"""
ANSWER = """
from pathlib import Path
from clients.device.start import opened
with opened(Path(sys.argv[1])) as agent:
    agent.ask("what is there?", Path(sys.argv[2]).read_bytes())
    assert agent.read_feed() >= 0
    print(json.dumps(loaded()))
"""
AFTERWARDS = """
from transformers.masking_utils import TransformGetItemToIndex
with TransformGetItemToIndex():
    assert torch.arange(3)[torch.tensor(2)] == 2
assert torch._dynamo.disable is sys.modules["torch._dynamo"].disable
assert sys.modules["torch._dynamo"].__file__
try:
    torch._check_with(KeyError, False, lambda: "as it was")
except KeyError:
    pass
else:
    raise AssertionError
"""
FAMILIES = """
from types import SimpleNamespace
import numpy as np
from PIL import Image
from cdc_flower.models import vlm
from cdc_flower.models.shared import load_shared
from cdc_flower.models.student import device_model
from cdc_flower.stages import PairConfig
found = {}
for name, path in json.loads(sys.argv[1]).items():
    config = PairConfig(teacher="nowhere", student=path, lora_rank=2)
    shared = load_shared(config, "x")
    model = device_model(shared, config)
    (tokens, grid), = shared.encode([Image.fromarray(np.zeros((32, 32, 3), np.uint8))])
    inputs = vlm.collate(shared.text, [tokens], [shared.text.question_ids("what is there?")], grids=[grid])
    vlm.answer(model, shared.text, inputs, 2)
    found[name] = loaded()
print(json.dumps(found))
"""


def said(script: str, *arguments: str):
    """What the last line of a Python program says, in JSON."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_an_agent_that_answers_has_no_compiler_in_it_and_the_compiler_is_left_as_it_was(
    one_bundle, picture, tmp_path
):
    bundle = shutil.copytree(one_bundle, tmp_path / "bundle")
    (tmp_path / "x.png").write_bytes(picture)
    assert said(BEGIN + ANSWER + AFTERWARDS, str(bundle), str(tmp_path / "x.png")) == []


@pytest.mark.slow
def test_nor_has_an_agent_of_other_families_of_models(tmp_path):
    """But of Gemma 3, whose masks of a window are made by what is in the compiler."""
    words, names = "what is there answer", [name for name in tiny.BUILDERS if name != "gemma3"]
    made = {name: str(tiny.write(name, tmp_path / name, words)) for name in names}
    assert said(BEGIN + FAMILIES, json.dumps(made)) == {name: [] for name in names}
