"""A cell whose settings its data refuse fails alone."""

import pytest

from cdc_flower.config import RunError, parse
from experiments.page import engine


def test_settings_that_models_refuse_are_the_failure_of_one_run(run_settings):
    with pytest.raises(RunError, match="setting 'pair.folder'|no pair|pair"):
        engine.run_local(parse(run_settings(pair_folder="/nowhere")))
