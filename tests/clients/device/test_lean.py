"""An agent loads neither PyTorch's compiler nor scipy's optimisers; who asks for them gets them."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys, torch, torch.distributed
before = torch.compile, torch.compiler.disable, torch.distributed.is_available
import clients.device.start
assert before == (torch.compile, torch.compiler.disable, torch.distributed.is_available)
assert {"bitsandbytes", "peft", "transformers.modeling_utils"} <= set(sys.modules)
unwanted = "torch._dynamo", "torch._inductor", "torch.distributed.tensor", "sympy", "scipy.optimize"
print([name for name in unwanted if name in sys.modules])
from transformers.masking_utils import TransformGetItemToIndex
with TransformGetItemToIndex():
    assert torch.arange(3)[torch.tensor(2)] == 2
assert torch._dynamo.disable is sys.modules["torch._dynamo"].disable
assert sys.modules["torch._dynamo"].__file__
"""


def test_what_an_agent_imports_has_no_compiler_in_it_and_the_compiler_is_left_as_it_was():
    said = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert (said.stdout.strip(), said.returncode) == ("[]", 0), said.stderr
