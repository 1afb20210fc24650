"""What is concluded from a comparison follows from its numbers, whichever way they fall."""

import dataclasses

import pandas as pd

from experiments.report.notes import notes
from experiments.run import compare


def test_notes_conclude_nothing_from_runs_that_were_not_completed(comparison):
    comparison.runs.loc[0, "status"] = "interrupted"
    (line,) = notes(comparison)
    asked = len(comparison.index["methods"]) * len(comparison.index["seeds"])
    assert line.startswith(f"1 of {asked} runs that were asked for were not completed; ")
    begun = dataclasses.replace(comparison, runs=comparison.runs.iloc[:2])
    (line,) = notes(begun)
    assert f"of {asked} runs that were asked for were not completed, {asked - 2} of them not begun; " in line


def test_notes_end_with_what_is_known_against_the_pair(comparison):
    comparison.index["pair_note"] = "It was hardly trained."
    assert notes(comparison)[-1] == "It was hardly trained."


def test_notes_say_who_is_ahead_whichever_way_it_falls(comparison):
    lines = " ".join(notes(comparison))
    assert "cdc closes" in lines
    assert "fedavg_lora, which learns from true labels, ends not ahead of cdc" in lines
    comparison.methods.loc[comparison.methods["method"] == "fedavg_lora", "acc_drift"] = 0.99
    assert "ends ahead of cdc" in " ".join(notes(comparison))


def test_notes_say_how_often_a_guard_held_back_and_nothing_where_it_never_did(comparison):
    assert "guard" not in " ".join(notes(comparison))
    rows = [
        {"method": "cdc", "seed": 0, "round": i, "name": "guard_held", "value": held}
        for i, held in enumerate((1.0, 0.0, 1.0))
    ]
    comparison = dataclasses.replace(comparison, metrics=pd.DataFrame(rows))
    assert "cdc: the guard (cloud.guard) held back 2 of 3 versions in part or whole." in notes(comparison)


def test_the_arms_of_a_study_are_set_against_its_first_by_seed(engine, tmp_path):
    arms = {
        "nothing": {"run.method": "static"},
        "ours": {"run.method": "cdc"},
        "all": {"run.method": "fedprox_lora"},
    }
    small = {"run.rounds": 4, "run.devices": 2}
    made = compare.run(small, arms, 2, tmp_path / "out", 0, progress=False, engine=engine)
    assert notes(made) == [
        "ours against nothing, points, by seed: drift +45.0 ±0.0, source +0.0 ±0.0.",
        "all against nothing, points, by seed: drift +50.0 ±0.0, source +0.0 ±0.0.",
    ]
    gap = made.methods.set_index("method")["gap_closed"]
    assert gap["nothing"] == 0.0
    assert gap["all"] > gap["ours"] > 0.5  # from the arm whose method is static, whatever its name
    alone = compare.run(small, arms, 1, tmp_path / "one", 0, progress=False, engine=engine)
    assert notes(alone) == []
