"""What the cloud trains once and keeps: a module's state in a file of the cache."""

from __future__ import annotations

from collections.abc import Callable
from logging import getLogger
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from cdc_flower import disk

M = TypeVar("M", bound=nn.Module)
_log = getLogger(__name__)


def state(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's tensors, which further training does not change."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def kept(path: Path, module: M, make: Callable[[], M]) -> M:
    """The module in the state of a file; where there is none, the one that is made, which is written there.

    Args:
        path: of the cache folder, with a digest of all that decides the training in its name.
        module: of the right shapes, loaded in place.
        make: where there is no file, or one that cannot be used.

    Raises:
        DiskError: the file cannot be written.
    """
    if path.is_file():
        try:
            module.load_state_dict(load(path.read_bytes()))
            return module.eval()
        except (SafetensorError, ValueError, RuntimeError, OSError) as err:  # RuntimeError: other tensors
            _log.warning("%s cannot be used, it is made anew: %s", path, err)
    made = make()
    with disk.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    disk.replace(path, save(state(made)))
    return made.eval()
