"""A machine is measured as what it is, and its profile says which figures were."""

from __future__ import annotations

import pytest
import torch

from cdc_flower.config import ConfigError
from cdc_flower.fleet.cost import roofline
from cdc_flower.fleet.cost.profiles import read_profiles
from experiments.bench import calibrate
from experiments.bench.calibrate import Measured

LIKE = read_profiles()["minipc"]
MEASURED = Measured(4e10, 3e10, 1e11, 8e9, 2e9, "CPU, 1 thread", 2)


def test_arithmetic_in_fewer_bits_is_taken_only_where_it_is_faster():
    found = calibrate.profile("x", MEASURED, LIKE, {})
    assert (found.flops_fp32, found.flops_fp16, found.flops_int8) == (4e10, 4e10, 1e11)
    assert found.sources["flops_fp16"].startswith("as with more bits: here torch does 3e+10 op/s, slower")
    none = calibrate.profile("x", Measured(4e10, None, None, 8e9, 2e9, "CPU", 2), LIKE, {})
    assert (none.flops_fp16, none.flops_int8) == (4e10, 4e10)
    assert "has no such product" in none.sources["flops_int8"]


def test_a_large_product_runs_at_no_less_than_a_tiny_ones_rate():
    tiny = calibrate._rate("fp32", ((4, 4, 4),), 2, torch.device("cpu"))
    both = calibrate._rate("fp32", ((4, 4, 4), (256, 256, 256)), 2, torch.device("cpu"))
    assert tiny is not None
    assert both is not None
    assert both > tiny


def test_questions_together_read_the_weights_once():
    from cdc_flower.fleet.cost.cost_models import table

    shapes = roofline.shapes(table()["llava-1.5-7b"], 16)
    alone = roofline.answering(shapes, "nf4", 600, 576, 8)
    assert calibrate._together(shapes, "nf4", 600, 8, 1) == alone
    many = calibrate._together(shapes, "nf4", 600, 8, 32)
    for one, all_of_them in zip(alone, many, strict=True):
        assert all_of_them.flops == 32 * one.flops
        assert one.bytes_moved <= all_of_them.bytes_moved < 8 * one.bytes_moved


def test_an_accelerator_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        assert calibrate.measure(accelerator=True, quick=True).fp32 > 1e11
    else:
        with pytest.raises(ConfigError, match="no CUDA device"):
            calibrate.measure(accelerator=True, quick=True)


def test_the_check_answers_for_real_and_no_machine_beats_its_roofline_by_much():
    rows = list(calibrate.check(calibrate.profile("x", calibrate.measure(quick=True), LIKE, {}), quick=True))
    arms = [(r.compression, r.questions) for r in rows]
    assert arms == [("nf4", 1), ("nf4", 32), ("none", 1), ("none", 32)]
    for row in rows:  # rates and answers are measured one after another, on a host whose load changes
        assert row.measured > 0.03 * row.predicted > 0
        assert row.ratio == pytest.approx(row.measured / row.predicted)
