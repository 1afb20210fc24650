"""A state that was trained once: one that cannot be kept ends the command in one line."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cdc_flower.cloud.trained import kept, state
from cdc_flower.disk import DiskError


def test_a_copy_of_a_state_does_not_follow_the_module():
    module = nn.Linear(2, 1)
    before = state(module)
    with torch.no_grad():
        module.weight += 1
    assert torch.equal(before["weight"] + 1, module.weight)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "x.safetensors"
    with pytest.raises(DiskError, match=r"x\.safetensors' cannot be written"):
        kept(path, nn.Linear(1, 1), lambda: nn.Linear(1, 1))
