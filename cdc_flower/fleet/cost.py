"""What a device-task costs a device: seconds of work by roofline, from what the device says it did.

A reply says FLOPs and generated tokens of the student that really ran. They are counted back into passes of
that student, and the passes are charged in the shapes of the cost model: the student's own, or those of a
model that a small pair stands for. So a kind of device work needs no cost of its own: whatever it computes
shows in its FLOPs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cdc_flower.config import Config, ConfigError
from cdc_flower.data.world import World
from cdc_flower.fleet import cost_models, roofline
from cdc_flower.fleet.devices import Devices, fleet, parse_mix, read_profiles
from cdc_flower.fleet.roofline import Shapes
from cdc_flower.models.pair import Pair


@dataclass(frozen=True)
class Charges:
    """What devices run and are charged for.

    Attributes:
        devices: n devices.
        compression: n keys of `roofline.COMPRESSIONS`.
        own: shapes of the student that really runs.
        charged: shapes of the cost model.
        text: mean positions of a sample besides its vision tokens.
        samples: questions that a task answers.
    """

    devices: Devices
    compression: tuple[str, ...]
    own: Shapes
    charged: Shapes
    text: int
    samples: int

    def seconds(
        self, device: np.ndarray, forward: np.ndarray, backward: np.ndarray, decoded: np.ndarray
    ) -> np.ndarray:
        """Seconds of work of m tasks.

        Args:
            device: (m,) int64.
            forward, backward: (m,) FLOPs of the student that ran.
            decoded: (m,) answer tokens it generated, end tokens included.
        """
        length = self.text + self.own.patches
        one = roofline.prefill(self.own, "none", length, self.own.patches)
        steps = np.maximum(0.0, decoded - self.samples)  # an answer's first token comes with the prefill
        spent_decoding = steps * roofline.decode(self.own, "none", length, 1).flops
        prefills = np.maximum(0.0, forward - spent_decoding) / one.flops
        trained = backward / one.flops
        total = np.zeros(len(device))
        names = np.array(self.compression)[device]
        for name in sorted(set(names.tolist())):
            rows = np.flatnonzero(names == name)
            on, length = self.devices.rows(device[rows]), self.text + self.charged.patches
            read = roofline.prefill(self.charged, name, length, self.charged.patches)
            step, tower = roofline.decode(self.charged, name, length, 1), roofline.tower(self.charged)
            total[rows] = (
                self.samples * roofline.work_seconds(on, [tower])
                + prefills[rows] * roofline.work_seconds(on, [read])
                + steps[rows] * roofline.work_seconds(on, [step])
                + trained[rows] * roofline.seconds(on, read.flops, read.bytes_moved, "fp32")
            )
        return total


def charges(config: Config, pair: Pair, world: World) -> Charges:
    """The fleet of a run.

    Raises:
        ConfigError: a mix, a profile or a cost model that cannot be used, or a device whose RAM does not hold
            the model.
    """
    settings = config.fleet
    own_config = pair.student_config()
    rank = config.pair.lora_rank
    own = roofline.shapes(own_config, rank)
    charged = roofline.shapes(cost_models.load(settings.cost_model, own_config), rank)
    questions = [len(pair.text.question_ids(str(q))) for q in world.train["question"].unique()]
    prefix = len(pair.text.prefix_ids)
    longest = prefix + charged.patches + max(questions) + pair.max_answer_tokens
    chosen = compressions(config, charged, longest)
    devices = fleet(settings.mix, config.run.devices, config.run.seed)
    compression = tuple(chosen[name] for name in devices.names)
    text = prefix + round(sum(questions) / len(questions))
    return Charges(devices, compression, own, charged, text, config.run.samples_per_round)


def compressions(config: Config, charged: Shapes, longest: int) -> dict[str, str]:
    """Profile of the mix -> the compression its devices run: the setting, or (auto) the least that fits.

    Raises:
        ConfigError: what is to run does not fit the RAM of a profile.
    """
    shares, profiles = parse_mix(config.fleet.mix, read_profiles())
    found = {}
    for name in shares:
        profile, fixed = profiles[name], config.pair.compression
        if fixed == "auto":
            found[name] = roofline.compression_for(profile, charged, longest)
            continue
        needed = roofline.needed_bytes(charged, fixed, longest)
        if not roofline.fits(profile, needed):
            raise ConfigError(
                f"setting 'compression' = '{fixed}': profile '{name}' has {profile.ram / 1e6:,.0f} MB, the "
                f"model needs {needed / 1e6:,.0f} MB; allowed: a smaller compression, 'auto', another mix"
            )
        found[name] = fixed
    return found
