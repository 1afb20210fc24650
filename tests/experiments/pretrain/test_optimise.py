"""A stage of training can be stopped at any step and ends with the same bits."""

import pytest
import torch
from torch import nn

from cdc_flower.config import ConfigError
from experiments.pretrain import optimise
from experiments.pretrain.recipes import Recipe


class Model(nn.Module):
    """A matrix of a block, for Muon, and one that is not, for AdamW."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lm = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(8, 8)])})
        self.head = nn.Linear(8, 1)
        self.steps = []

    def train_on(self, folder, steps=6, stop=None, fingerprint="f"):
        def loss_of(step):
            if step == stop:
                raise KeyboardInterrupt
            self.steps.append(step)
            x = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
            return (self.head(torch.tanh(self.lm["layers"][0](x))) - x.sum(1, keepdim=True)).square().mean()

        optimise.optimise("stage", self, loss_of, steps, 1e-2, Recipe(), folder, fingerprint, None)

    @property
    def bits(self):
        return {k: v.clone() for k, v in self.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_an_interrupted_stage_ends_with_the_same_bits(tmp_path, monkeypatch):
    whole, first, second = Model(), Model(), Model()
    whole.train_on(tmp_path)
    monkeypatch.setattr(optimise, "SAVE_SECONDS", -1.0)  # save after every step
    (tmp_path / "again").mkdir()
    with pytest.raises(KeyboardInterrupt):
        first.train_on(tmp_path / "again", stop=4)
    assert optimise.done_before(tmp_path / "again", "stage", "f") == 4
    second.train_on(tmp_path / "again")
    assert second.steps == [4, 5]
    assert same(second.bits, whole.bits)


def test_a_finished_stage_is_only_loaded(tmp_path):
    first, second = Model(), Model()
    first.train_on(tmp_path)
    with torch.no_grad():
        second.head.weight.zero_()
    second.train_on(tmp_path)
    assert second.steps == []
    assert same(second.bits, first.bits)


def test_a_stage_of_another_fingerprint_starts_afresh(tmp_path):
    first, second = Model(), Model()
    first.train_on(tmp_path)
    assert [optimise.done_before(tmp_path, *of) for of in (("stage", "g"), ("other", "f"))] == [0, 0]
    second.train_on(tmp_path, fingerprint="g")
    assert second.steps == [0, 1, 2, 3, 4, 5]


def test_a_stage_of_other_shapes_starts_afresh(tmp_path):
    first, second = Model(), Model()
    first.train_on(tmp_path)
    second.head = nn.Linear(8, 2)
    second.train_on(tmp_path)
    assert second.steps == [0, 1, 2, 3, 4, 5]


def test_a_broken_file_is_named(tmp_path):
    Model().train_on(tmp_path)
    path = tmp_path / "stage.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    for read in (Model().train_on, lambda folder: optimise.done_before(folder, "stage", "f")):
        with pytest.raises(ConfigError, match=r"stage\.safetensors: cannot be read: .*; allowed: .* or none"):
            read(tmp_path)
