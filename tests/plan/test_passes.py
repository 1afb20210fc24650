"""Plans count the passes that are made: cut to what fits at once."""

from __future__ import annotations

import dataclasses

import torch

from cdc_flower.models.placement import Place
from cdc_flower.plan import passes
from cdc_flower.plan.memory import Holds, Run

CDC = Holds(distils=True)


def test_a_batch_takes_what_fits_and_no_more(planned, monkeypatch):
    few, many = (planned(CDC, cloud_batch=n) for n in (100, 20_000))
    two, three = (max(passes._steps(run, False, True)) for run in (few, many))
    assert two < three < 3 * 2**30  # without a bound 200 times as much
    small = Place(torch.device("cpu"), torch.float32, 2**24)
    monkeypatch.setattr(Run, "place", small)
    assert max(passes._steps(many, False, True)) < 4 * 2**24
    assert max(passes._steps(few, False, True)) < two


def test_held_out_items_are_read_in_parts_of_what_fits(planned, monkeypatch):
    run = planned(CDC)
    whole = max(passes._answers(run, False, True, True))
    monkeypatch.setattr(Run, "place", Place(torch.device("cpu"), torch.float32, 2**20))
    assert max(passes._answers(dataclasses.replace(run), False, True, True)) <= whole


def test_what_a_process_keeps_of_its_passes_covers_the_widest(planned):
    run = planned(CDC)
    widest = max([*passes._steps(run, True, True), *passes._answers(run, True, True, True)])
    assert passes.kept(run, True, True, True) > widest
