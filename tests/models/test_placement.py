"""What lies where, and that nothing is left behind where a model is on another device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cdc_flower import checkpoint
from cdc_flower import session as sessions
from cdc_flower.config import ConfigError, parse
from cdc_flower.models import adapters, placement, vlm
from cdc_flower.models.placement import Place
from cdc_flower.models.shared import load_shared
from cdc_flower.models.student import device_model, twin_model
from cdc_flower.stages import PairConfig
from cdc_flower.uplink.scores import TOKEN_SCORES
from strategies.run import run_local
from tests import tiny
from tests.elsewhere import DEVICE, There, elsewhere, move

LESS = {
    "run_devices": 1,
    "run_rounds": 1,
    "run_eval_every": 1,
    "drift_onset": 1,
    "pair_compression": "none",
    "data_items_per_domain": 2,
    "cloud_source_replay": 16,
    "cloud_steps": 1,
}


@pytest.fixture
def empty_session(monkeypatch):
    """A process that has loaded nothing."""
    monkeypatch.setattr(sessions, "_OF_THIS_PROCESS", sessions.Session())


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("cdc", {"cloud_losses": "ce,kl,feature,wavelet"}),
        pytest.param("cdc", {"token_score": "mc_dropout"}, marks=slow),
        pytest.param("cdc", {"token_score": "entropy"}, marks=slow),
        ("fedprox_lora", {}),
        pytest.param("fedavg_full", {}, marks=slow),
        pytest.param("fedavg_pseudo", {}, marks=slow),
    ],
)
def test_every_part_of_a_run_moves_its_inputs_to_the_model(
    run_settings, monkeypatch, empty_session, method, more
):
    config, seen = parse(run_settings(method=method, **LESS, **more)), []
    place = Place(DEVICE, torch.float32, 2**30)

    def settled(model):
        seen.append(model)
        return move(model)

    with monkeypatch.context() as patch, elsewhere():
        patch.setattr(placement, "here", lambda: place)
        patch.setattr(placement, "settled", settled)
        patch.setattr(placement, "teacher", lambda: {"dtype": torch.float32})
        there = adapter(run_local(config))
    assert seen
    assert all(isinstance(p.data, There) for model in seen for p in model.parameters())
    if method == "cdc":
        monkeypatch.setattr(sessions, "_OF_THIS_PROCESS", sessions.Session())
        here = adapter(run_local(config))
        assert np.abs(there - here).mean() < 1e-5


def adapter(folder):
    """The newest of a run."""
    newest = checkpoint.load_newest(folder / "checkpoints")
    assert newest is not None
    (flat,) = newest[1]["arrays"].values()
    return np.asarray(flat)


def test_what_stays_behind_is_refused():
    with elsewhere():
        there = torch.ones(3).to(DEVICE)
        assert (there + there).cpu().tolist() == [2, 2, 2]
        assert torch.arange(3, device=there.device).tolist() == [0, 1, 2]
        with pytest.raises(RuntimeError, match="1 tensors are on the model's device, 1 are not"):
            there.add(torch.ones(3))


@pytest.fixture
def a_gpu(monkeypatch, empty_session):
    """Torch says that it sees a GPU, and whoever touches it fails: there is none."""
    asked = []

    def touched(*_):
        raise AssertionError("the GPU was touched")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(asked.append(1)) or True)
    for name in ("_lazy_init", "mem_get_info", "current_device"):
        monkeypatch.setattr(torch.cuda, name, touched)
    return asked


def test_cpu_asks_no_driver_and_auto_takes_what_there_is(a_gpu, monkeypatch):
    placement.choose("cpu")
    assert placement.here() is placement.CPU
    assert placement.teacher() == {"dtype": torch.float32}
    assert not a_gpu
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**33, 2**34))
    for device in ("auto", "cuda"):
        placement.choose(device)
        assert placement.here() == Place(torch.device("cuda"), torch.bfloat16, 2**32)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    placement.choose("auto")
    assert placement.here() is placement.CPU
    with pytest.raises(ConfigError, match="torch sees no GPU here; allowed: auto, cpu"):
        placement.choose("cuda")
    assert sessions.session().device == "auto"


def test_another_choice_lets_go_of_models_that_lie_elsewhere(empty_session):
    sessions.session().shelf("models")["student"] = "on a CPU"
    placement.choose("auto")
    assert sessions.session().shelf("models")
    placement.choose("cpu")
    assert not sessions.session().shelf("models")


@pytest.mark.parametrize("compression", ["nf4", pytest.param("int8", marks=slow)])
def test_on_cpu_no_library_puts_a_student_on_a_gpu_that_it_finds(make, a_gpu, compression):
    placement.choose("cpu")
    made = make("pair")
    shared = load_shared(PairConfig(teacher="nowhere", student=made.shared.path), "x")
    student = device_model(shared, PairConfig(lora_rank=2, compression=compression))
    assert {p.device.type for p in student.parameters()} == {"cpu"}


@slow
@pytest.mark.parametrize("method", ["cdc", "fedavg_lora"])
def test_a_run_on_cpu_beside_a_gpu_is_a_run_without_one(run_settings, monkeypatch, empty_session, method):
    asked = run_settings(**{**LESS, "pair_compression": "nf4"}, method=method)
    with monkeypatch.context() as patch:
        for name in ("_lazy_init", "mem_get_info", "current_device"):
            patch.setattr(torch.cuda, name, lambda *_: pytest.fail("the GPU was touched"))
        patch.setattr(torch.cuda, "is_available", lambda: True)
        there = adapter(run_local(parse({**asked, "run.device": "cpu"})))
    monkeypatch.setattr(sessions, "_OF_THIS_PROCESS", sessions.Session())
    assert np.array_equal(
        there, adapter(run_local(parse({**asked, "run.out-dir": f"{asked['run.out-dir']}-2"})))
    )


HALF = Place(torch.device("cpu"), torch.bfloat16, 2**30)
"""What a GPU does, on a CPU: slow, and right."""


def gradients(model, inputs):
    loss = vlm.forward(model, inputs).logits.log_softmax(-1)[:, :, 5].mean()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in adapters.trainable(model) if p.grad is not None])


@pytest.mark.parametrize(
    ("name", "compression"),
    [
        ("pair", "nf4"),
        *[pytest.param(name, "nf4", marks=slow) for name in sorted(tiny.BUILDERS)],
        *[pytest.param(name, "none", marks=slow) for name in sorted(tiny.BUILDERS)],
    ],
)
def test_in_half_precision_a_twin_learns_what_it_learns_in_full(
    make, monkeypatch, empty_session, name, compression
):
    made = make(name)
    shared = load_shared(PairConfig(teacher="nowhere", student=made.shared.path), "x")
    config = PairConfig(lora_rank=2, compression=compression)
    inputs = vlm.collate(shared.text, made.tokens, made.asked, [[5], [6, 7], [5, 6]], grids=made.grids)
    full = twin_model(shared, config)
    adapters.write(full, adapters.read(full) + np.float32(0.01))
    wanted, logits = gradients(full, inputs), vlm.forward(full, inputs).logits
    monkeypatch.setattr(sessions, "_OF_THIS_PROCESS", sessions.Session())
    monkeypatch.setattr(placement, "here", lambda: HALF)
    half, device = twin_model(shared, config), device_model(shared, config)
    assert np.array_equal(adapters.read(half) + np.float32(0.01), adapters.read(full))
    for p in half.parameters():
        assert p.dtype is (torch.float32 if p.requires_grad else torch.bfloat16)
    for model in (half, device):
        adapters.write(model, adapters.read(full))
        found = vlm.forward(model, inputs).logits
        assert found.dtype is torch.float32
        assert (found - logits).norm() < 0.1 * logits.norm()
    got = gradients(half, inputs)
    assert got.dtype is torch.float32
    assert torch.cosine_similarity(got, wanted, dim=0) > 0.99
    score = TOKEN_SCORES["attention"].read
    assert vlm.answer(device, shared.text, inputs, 3, read=score).read is not None


@slow
def test_a_run_in_half_precision_ends(run_settings, monkeypatch, empty_session):
    monkeypatch.setattr(placement, "here", lambda: HALF)
    folder = run_local(parse(run_settings(**{**LESS, "pair_compression": "nf4"})))
    assert np.isfinite(adapter(folder)).all()
