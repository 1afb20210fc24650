"""What a pass has alive by shapes, beside what it has alive when it is traced."""

from __future__ import annotations

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch
from transformers import LlavaConfig, Qwen2Config

from cdc_flower.models import placement, room
from cdc_flower.models.placement import Place
from cdc_flower.models.room import Pass, again, alive, rows
from cdc_flower.models.student import twin_model
from cdc_flower.plan.checkpoints import open_checkpoint
from cdc_flower.plan.live import Work, peak

SHAPE = SimpleNamespace(
    hidden_size=896,
    intermediate_size=4864,
    num_hidden_layers=24,
    num_attention_heads=14,
    num_key_value_heads=2,
    vocab_size=152_000,
    _attn_implementation="sdpa",
)
"""Of a language model of half a billion weights."""
SEVEN = {"hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32}
SEVEN |= {"num_attention_heads": 32, "num_key_value_heads": 32}


@pytest.mark.parametrize("train", [True, False])
def test_it_is_near_what_is_traced(pair_folder, train):
    of = open_checkpoint(str(pair_folder / "student"), "student", "lora", 4, "eager")
    one = Pass(85, 9 if train else 1, train)
    traced = peak(of.short, of.layers, Work(2, one.length, one.predicted, train)) / 2
    assert 0.6 * traced < alive(of.text, one, 4, eager=True) < 1.8 * traced


def test_a_small_pair_is_never_cut(shared, config):
    text = room.text_of(twin_model(shared, config.pair))
    assert rows(text, Pass(85, 9, train=True)) >= 96
    assert rows(text, Pass(85)) >= 128
    assert not again(text, Pass(85, 9, train=True))


def test_a_large_student_learns_a_sequence_at_a_time_or_computes_layers_again():
    one, seven = Pass(620, 9, train=True), SimpleNamespace(**{**vars(SHAPE), **SEVEN})
    assert rows(SHAPE, one) == 1
    assert not again(SHAPE, one)
    assert again(seven, one)
    frugal = dataclasses.replace(one, again=True)
    assert 1 <= rows(seven, frugal) < rows(SHAPE, frugal) < 32
    assert rows(SHAPE, frugal) * alive(SHAPE, frugal, 4, False) <= placement.CPU.budget
    gpu = Place(torch.device("cuda"), torch.bfloat16, 20 * 2**30)
    assert not again(seven, one, gpu)
    assert 4 < rows(seven, one, gpu) < rows(SHAPE, one, gpu)


def test_maps_of_attention_and_words_take_room():
    few = Pass(620, 9)
    assert alive(SHAPE, few, 4, True) > alive(SHAPE, few, 2, True)
    longer = dataclasses.replace(few, length=4000)
    assert alive(SHAPE, longer, 4, True) > 2 * alive(SHAPE, longer, 4, False)
    more = dataclasses.replace(few, predicted=10)
    assert alive(SHAPE, more, 4, False) - alive(SHAPE, few, 4, False) == 12 * 152_000


def test_layers_are_computed_again_only_where_they_must(shared, config, monkeypatch):
    twin, one = copy.deepcopy(twin_model(shared, config.pair)), Pass(85, 9, train=True)
    assert room.frugal(twin, one) == one
    assert not twin.get_base_model().is_activation_checkpointing
    small = Place(torch.device("cpu"), torch.float32, 2**20)
    monkeypatch.setattr(room, "here", lambda: small)
    assert room.frugal(twin, one).again
    assert twin.get_base_model().is_activation_checkpointing


def test_fewer_sequences_go_together_the_more_each_has_alive():
    half = LlavaConfig(
        text_config=Qwen2Config(
            hidden_size=896,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            intermediate_size=4864,
        )
    )
    short, long, longer = (room.together(half, length, 128) for length in (40, 600, 2400))
    assert short == 128
    assert 4 <= long <= 16
    assert longer == 1


def test_nothing_is_cut_of_what_the_packaged_pair_is_asked(shared):
    assert room.together(shared.config, 130, 128) == 128
