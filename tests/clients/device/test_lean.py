"""An agent does not load PyTorch's compiler."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys, torch
compiler = torch.compile
import clients.device.start
assert torch.compile is compiler
assert "bitsandbytes" in sys.modules
print([name for name in sys.modules if name.startswith("torch._inductor.codegen")][:3])
"""


def test_what_an_agent_imports_has_no_compiler_in_it_and_the_compiler_is_left_as_it_was():
    said = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert said.stdout.strip() == "[]", said.stderr
