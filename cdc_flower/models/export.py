"""The adapted student of a run as plain checkpoints: for peft beside its base, or merged into one.

The cloud distilled the adapter into the weights that devices run, the student's after compression and back.
So the base is the student loaded with the same compression (`README.md` in the folder says how), and a merged
checkpoint holds the values after compression, in float32.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn

from cdc_flower.config import ConfigError
from cdc_flower.models import adapters, placement
from cdc_flower.models.adapted import adapted
from cdc_flower.models.compressions import quantization
from cdc_flower.models.families import FAMILIES
from cdc_flower.models.family import bare
from cdc_flower.models.int4 import Int4Config
from cdc_flower.models.shared import Shared
from cdc_flower.stages import PairConfig

_PEFT = """# An adapter made by cdc-flower

{what}

```python
import json
from pathlib import Path
from peft import PeftModel
from transformers import {model_class}{config}

here = Path("{here}")
{load}
model = PeftModel.from_pretrained(base, here)
```
"""


def export(run: Path, out: Path, device: int | None = None, merge: bool = False) -> Path:
    """Write the adapted student of a run.

    Args:
        run: a run folder with a checkpoint of its own (`run.checkpoint-every`).
        out: a folder that is not there yet, or empty.
        device: whose adapter; None = the newest of the cloud.
        merge: one checkpoint of plain weights, instead of a peft folder.

    Returns:
        `out`.

    Raises:
        ConfigError: no such run or device, no checkpoint, weights that have changed, or `out` is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out '{out}': is there already; allowed: a new or empty folder")
    placement.choose("cpu")  # on a GPU weights would be rounded to bfloat16
    found = adapted(run, device)
    if merge:
        return as_checkpoint(found.model, found.shared, out)
    if found.whole:
        raise ConfigError(f"run '{run}' trained all weights, there is no adapter; allowed: --merge")
    pair = found.config.pair
    if pair.adapter != "lora":
        raise ConfigError(
            f"run '{run}': peft does not save the biases of an adapter of kind '{pair.adapter}'; "
            "allowed: --merge"
        )
    return as_adapter(found.model, found.shared, pair, out, f"Run `{run.name}`, {_whose(device)}.")


def _whose(device: int | None) -> str:
    return "the newest adapter" if device is None else f"the adapter that device {device} holds"


def as_adapter(model: Any, shared: Shared, config: PairConfig, out: Path, what: str) -> Path:
    """Write adapter, projector and norms of a student for peft, and how its base is loaded.

    Args:
        what: it is, for the README in the folder.
    """
    family = FAMILIES[shared.family]
    base = Path(shared.path).absolute() if Path(shared.path).exists() else shared.path
    adapters.save(model, out)
    given = quantization(config.compression, family.float_parts)
    arguments = "dtype=torch.float32"
    if given is not None:
        (out / "base_quantization.json").write_text(json.dumps(given.to_diff_dict(), indent=1, default=str))
        arguments += f", quantization_config={type(given).__name__}(**quantization)"
    own = isinstance(given, Int4Config)
    load = [
        "from cdc_flower.models.int4 import Int4Config  # transformers alone does not know it" if own else "",
        "quantization = json.loads((here / 'base_quantization.json').read_text())" if given else "",
        f'base = {family.model_class.__name__}.from_pretrained("{base}", {arguments})',
    ]
    if shared.config.tie_word_embeddings:
        what += (
            " Embedding and head of the base are one weight, and the adapter has LoRA for each: peft cannot "
            "merge it, `cdc-flower export --merge` can."
        )
    words = _PEFT.format(
        what=f"{what} Its base is the student in compression `{config.compression}`: in another one, "
        f"answers are not those of the run. It is not in this folder: `{base}` is needed where this is "
        "loaded, and on another machine both paths below are others.",
        model_class=family.model_class.__name__,
        config="" if own or given is None else f", {type(given).__name__}",
        here=out.absolute(),
        load="\n".join(filter(None, load)),
    )
    (out / "README.md").write_text(words.replace("import json\n", "import json\nimport torch\n"))
    return out


def _untied(model: Any) -> Any:
    """The model with a head of its own, where LoRA on embedding and head makes one weight two."""
    base = bare(model)
    head = getattr(base.lm_head, "base_layer", None)
    if head is None:
        return model
    base.config.tie_word_embeddings = base.config.text_config.tie_word_embeddings = False
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    return model


def as_checkpoint(model: Any, shared: Shared, out: Path) -> Path:
    """Write a student as plain weights with tokenizer, chat template and picture processor; an adapter is
    merged into a copy of them.
    """
    model = _untied(copy.deepcopy(model))  # other students may share what is frozen
    FAMILIES[shared.family].give_tower(bare(model), shared.tower)
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    model._hf_peft_config_loaded = False
    model.save_pretrained(out)
    shared.text.tokenizer.save_pretrained(out)
    shared.processor.save_pretrained(out)
    return out
