"""A method of adaptation: what every one of them says of itself, and what the base does for all.

A method is one strategy file here (or in any package, see `cdc_flower.plugins`) and one file of device work.
Nothing else knows its name: tables, report, charts, checks, costs, checkpoints and the comparison ask the
registry and the traits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import nn

from cdc_flower import plugins
from cdc_flower.checkpoint import Saved
from cdc_flower.config import Config, ConfigError
from cdc_flower.data.source import longest_prompt
from cdc_flower.data.world import World
from cdc_flower.fleet.cost import roofline
from cdc_flower.fleet.cost.charges import CloudWork
from cdc_flower.models.shared import Shared
from cdc_flower.models.teacher import Teacher, pair_digest
from cdc_flower.results import Progress
from cdc_flower.wire import keys
from cdc_flower.wire.reply import Form
from strategies import doorkeeper
from strategies.devices import JUDGED, SHOWN, shown
from strategies.fleet import Fleet


@dataclass(frozen=True)
class Traits:
    """What a reader of a table must know about a method, and what a run asks of it.

    Attributes:
        labels: devices learn from true answers.
        device_backprop: devices compute gradients.
        takes_late: it can use an answer to an earlier round.
        personal: every device has parameters of its own, see `Method.adapter_of`.
        adapts: anything changes at all; a method that does not is the lower bound of a comparison.
        shown: it is compared when nothing else is asked for.
        clips: it works on clips alone; data of pictures are refused.
    """

    labels: bool
    device_backprop: bool
    takes_late: bool = False
    personal: bool = False
    adapts: bool = True
    shown: bool = True
    clips: bool = False


@dataclass(frozen=True, eq=False)
class Setup:
    """What a method is built from.

    Attributes:
        teacher: loads the teacher when it is first called; a method that has none never calls it.
        stream: how often devices meet a row again (`data.schedule.repeats`).
        tell: is told how far what is trained beforehand has come (`results.Progress`).
    """

    config: Config
    shared: Shared
    world: World
    teacher: Callable[[], Teacher]
    stream: Mapping[str, float] = field(default_factory=dict)
    tell: Progress | None = None

    @property
    def digest(self) -> str:
        """sha256 hex of the pair: teacher, student and the transform of tokens."""
        return pair_digest(self.config.pair, self.shared, self.config.data.name)

    @property
    def shown(self) -> list[int]:
        """The devices whose adapters are measured, where each has its own."""
        return shown(self.config.run.devices, SHOWN if self.world.owners is None else JUDGED)

    def fleet(self, *, counted: bool = True, adapter: bool = True) -> Fleet:
        """The devices of the run, whose answers the world's labels judge.

        Args:
            counted: as in `Fleet`.
            adapter: whether the model that devices run has an adapter, which costs FLOPs.
        """
        rank = self.config.pair.rank if adapter else 0
        shapes = roofline.shapes(self.shared.student_config(), rank)
        made = Fleet.of(self.config, counted=counted)
        positions = longest_prompt(self.shared, self.world) + self.shared.max_answer_tokens + 1
        door = doorkeeper.of(self.config, self.shared, self.world)
        return replace(made, judge=self.world.judge, shapes=shapes, positions=positions, door=door)


class Method(Strategy):
    """Base of all methods: a Flower strategy that also says what it is.

    A subclass sets the class attributes, and defines `build`, `configure_train`, `aggregate_train`, `form`,
    `adapter_of` and `cloud_work`. TRAIN messages carry under `wire.keys.CONFIG` the device work (`keys.WORK`,
    "module:function"), the round and whatever that work needs. `aggregate_train` hands the replies to
    `fleet.receive`, with `form()` and with what the method makes of one good reply; it sees no other, and the
    ledger is written there. EVALUATE messages carry the round alone, their replies what was answered in it.

    Attributes:
        name: as in `run.method`.
        about: one line for `cdc-flower methods`.
        traits: see `Traits`.
        settings: section -> frozen dataclass of `cdc_flower.setting.setting` fields; keys are `section.key`.
        needs: settings without which it is not what it says; a comparison sets them, a run with others is
            refused.
        fleet: whom it asks, the ledger, the prequential counts.
        model: the student as deployed, in float, into which adapters are written for held-out accuracy.
        metrics: of the last round, for metrics.parquet.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    traits: ClassVar[Traits]
    settings: ClassVar[Mapping[str, type]] = {}
    needs: ClassVar[Mapping[str, Any]] = {}

    fleet: Fleet
    model: nn.Module
    metrics: dict[str, float]

    @classmethod
    def build(cls, setup: Setup) -> Self:
        """The method of a run."""
        raise NotImplementedError

    @classmethod
    def check(cls, setup: Setup) -> None:
        """Refuse settings of the method that do not fit models or data.

        Raises:
            ConfigError: names the setting and what is allowed.
        """

    def initial_arrays(self) -> ArrayRecord:
        """What Flower's `start` takes: the adapter (P,) float32 before the first round."""
        return ArrayRecord({keys.PAYLOAD: Array(self.adapter_of(0))})

    def adapter_of(self, device: int) -> np.ndarray:
        """The adapter (P,) float32 a device should have now: one for all, or its own (trait `personal`)."""
        raise NotImplementedError

    def form(self) -> Form:
        """What a TRAIN reply holds, and how much of it at most. What devices computed, in counts and seconds,
        is added by the fleet (`fleet.computed` bounds the counts by how often samples are read); whatever
        else comes is refused.
        """
        raise NotImplementedError

    def cloud_work(self, samples: int) -> CloudWork:
        """What the cloud computes after a round in which so many samples came: for virtual time."""
        raise NotImplementedError

    def restored(self, lost: Mapping[int, bytes]) -> Mapping[bytes, np.ndarray]:
        """Adapters whose files were lost or damaged before a run resumed, made again from what a checkpoint
        holds of the method.

        Args:
            lost: device -> digest of the adapter it held.

        Returns:
            digest -> adapter (P,) float32; without those whose absence changes nothing.

        Raises:
            ConfigError: one that is needed cannot be made again; the default.
        """
        shown = ", ".join(map(str, sorted(lost)[:8])) + (", ..." if len(lost) > 8 else "")
        raise ConfigError(
            f"the adapters of devices {shown} are lost or damaged, and method '{self.name}' keeps no copy of "
            "them; allowed: the run folder with its adapters, or a new run"
        )

    def parts(self) -> dict[str, Saved]:
        """What a checkpoint holds of the method, beside the arrays, which Flower carries."""
        door = self.fleet.door
        return {"fleet": self.fleet, **({"doorkeeper": door} if door is not None else {})}

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask for the answers of this round's devices: the simulation's own traffic, in no ledger."""
        return self.fleet.ask_answers(grid, server_round)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Count which of them are right."""
        return self.fleet.add_answers(server_round, replies)

    def summary(self) -> None:
        """Flower prints this before a run; the run folder says more."""


DEFINED = ("build", "adapter_of", "cloud_work", "form", "configure_train", "aggregate_train")


def method(name: str) -> type[Method]:
    """The method of a name.

    Raises:
        ConfigError: no such method, or one that lacks something that a method says of itself.
    """
    plugins.refuse_unknown(plugins.METHODS, "method", name)
    found: Any = plugins.load(plugins.METHODS, name)
    lacks = [a for a in ("name", "about", "traits") if not hasattr(found, a)]
    lacks += [f"{a}()" for a in DEFINED if _own(found, a) is _own(Method, a)]
    if lacks or found.name != name:
        raise ConfigError(
            f"method '{name}' ({found.__module__}): it lacks {', '.join(lacks)}"
            if lacks
            else f"method '{name}' is registered under another name than its own, '{found.name}'"
        )
    return found


def _own(cls: type, name: str) -> Any:
    """A method of a class, out of its binding."""
    found = getattr(cls, name, None)
    return getattr(found, "__func__", found)


def names() -> tuple[str, ...]:
    """Names of the methods that are installed; nothing is imported."""
    return plugins.names(plugins.METHODS)


def methods() -> dict[str, type[Method]]:
    """All methods that can be used, in the order of a table: what does not adapt, what needs no gradients,
    the others. Another package's that cannot is left out, with one warning (`plugins.found`).
    """
    found = plugins.found(plugins.METHODS, method)
    return dict(sorted(found.items(), key=lambda item: _place(item[1].traits)))


def _place(traits: Traits) -> tuple[bool, bool, bool]:
    return traits.adapts, traits.device_backprop, not traits.labels
