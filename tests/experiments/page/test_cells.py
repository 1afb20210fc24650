"""Figures are kept while what they depend on is the same, and say what has changed when it is not."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cdc_flower.config import ConfigError, parse
from experiments.page import cells
from experiments.page.cells import Depends
from experiments.page.plan import TEACHER, Cell
from strategies.method import method, methods
from strategies.run import prepare


def depends(arm="cdc", **settings):
    changed = {key.replace("_", ".", 1).replace("_", "-"): value for key, value in settings.items()}
    config = parse({"run.method": "cdc", **changed})
    return Depends(1, cells.read_settings(config, arm), {"pair": "p", "data": "d", "method": "m"})


def saved(of):
    return {
        "format": 1,
        "edition": 1,
        "settings": dict(of.settings),
        "digests": dict(of.digests),
        "items": {},
    }


def test_a_cell_is_kept_until_something_it_depends_on_changes():
    now = depends()
    assert cells.changed(saved(now), now) == ""
    assert cells.changed(saved(now), depends(cloud_steps=7)) == f"cloud.steps {parse({}).cloud.steps} -> 7"
    assert cells.changed(saved(now), dataclasses.replace(now, edition=2)) == "edition 1 -> 2"
    other = dataclasses.replace(now, digests={**now.digests, "method": "x"})
    assert cells.changed(saved(now), other) == "method"
    assert other.digest != now.digest


def test_a_setting_that_is_new_counts_as_unchanged_while_it_has_its_default():
    older = saved(depends())
    del older["settings"]["cloud.tau"]
    assert cells.changed(older, depends()) == ""
    assert cells.changed(older, depends(cloud_tau=2.0)) == "cloud.tau 1.0 -> 2.0"
    older["settings"]["cloud.gone"] = 1
    assert cells.changed(older, depends()) == "cloud.gone 1 -> 'gone'"


def test_settings_that_a_run_does_not_read_do_not_count():
    read = depends().settings
    assert not [key for key in read if key.startswith(("fedavg.", "fleet.")) or key in cells.PLACES]
    assert [key for key in depends(fleet_mode="sync").settings if key.startswith("fleet.")]
    assert not [key for key in depends(TEACHER).settings if key.startswith(("cloud.", "uplink."))]


def test_a_rate_that_another_method_of_the_section_reads_does_not_count():
    was, now = ({"run_method": "tent", "fedavg_lr-full": rate} for rate in (0.1, 0.2))
    assert cells.changed(saved(depends(**was)), depends(**now)) == ""
    older = saved(depends(**was))
    older["settings"]["fedavg.lr-full"] = 0.1
    assert cells.changed(older, depends(**now)) == ""
    for name in cells.READ_BY["fedavg.lr-full"]:
        was, now = ({**of, "run_method": name} for of in (was, now))
        assert cells.changed(saved(depends(**was)), depends(**now)) == "fedavg.lr-full 0.1 -> 0.2"


def test_whoever_is_not_named_as_a_reader_orders_the_same_whatever_the_setting(run_settings):
    for key, readers in cells.READ_BY.items():
        section = key.partition(".")[0]
        for name in (name for name, of in methods().items() if section in of.settings):
            told = [
                method(name).build(prepare(parse(run_settings(method=name, **{key: value}))))
                for value in (0.4, 0.5)
            ]
            same = told[0].order == told[1].order
            assert same or name in readers, (key, name)


def test_items_are_read_back_as_they_were():
    items = pd.DataFrame({"domain": ["b", "a", "a", "b"], "worth": [1.0, 0.0, 1.0, 1.0]})
    found = cells.packed(items)
    assert found == {"a": "01", "b": "11"}
    assert cells.unpacked(found)["a"].tolist() == [0.0, 1.0]
    shares = cells.packed(items.assign(worth=[0.3, 0.6, 1.0, 0.0]))
    assert np.allclose(cells.unpacked(json.loads(json.dumps(shares)))["b"], [0.3, 0.0])


def test_a_cell_of_a_pack_holds_sums_of_groups_and_no_answer_by_itself():
    worth = (np.arange(95) % 3 == 0).astype(float)
    items = pd.DataFrame({"domain": ["a"] * 95 + ["b"] * 12, "worth": [*worth, *[1.0] * 12]})
    found = json.loads(json.dumps(cells.packed(items, alone=False)))
    assert [len(of["sums"]) for of in found.values()] == [9, 1]
    assert found["a"]["items"] == 95
    assert sum(found["a"]["sums"]) == worth.sum()
    means = cells.unpacked(found)
    assert means["a"][4] == pytest.approx(worth[4::9].mean())
    assert len(means["b"]) == 0  # one group has no spread
    assert cells.count(found) == cells.count(cells.packed(items)) == 107
    many = pd.DataFrame({"domain": "a", "worth": np.ones(5000)})
    assert len(cells.packed(many, alone=False)["a"]["sums"]) == cells.GROUPS


def test_the_committed_cells_of_packs_have_no_answer_by_itself():
    for path in Path("docs/results/cells").glob("*/*.json"):
        cell = json.loads(path.read_text(encoding="utf-8"))
        for of in cell["items"].values():
            assert cell["data"] == "scenes" or of["items"] >= cells.LEAST * len(of["sums"]), path


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}'])
def test_a_file_that_is_no_cell_is_refused(tmp_path, text):
    cell = Cell("scenes", "", "cdc", 0)
    path = cells.file_of(tmp_path, cell)
    assert cells.read(tmp_path, cell) is None
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"cdc-0\.json.*allowed: a file that `page` wrote"):
        cells.read(tmp_path, cell)
