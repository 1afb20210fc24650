"""Domains: what in a row the student never saw."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_flower.config import ConfigError, parse
from cdc_flower.data.domains import check_domains, domains
from tests.data.frames import frame


def test_a_domain_says_which_things_the_student_never_saw():
    data = parse(
        {"data.known-objects": "cat, dog", "data.known-questions": "what", "data.known-styles": "flat"}
    ).data
    rows = frame()
    for (_, row), name in zip(rows.iterrows(), domains(rows, data), strict=True):
        known = {
            "object": row.concept in ("cat", "dog"),
            "question": row.qtype == "what",
            "style": row.domain == "flat",
        }
        unknown = [axis for axis in known if not known[axis]]
        assert name == ("source" if not unknown else unknown[0] if len(unknown) == 1 else "mixed")


def test_without_known_settings_everything_is_source():
    assert set(domains(frame(), parse({}).data)) == {"source"}


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6), min_size=1),
    st.integers(1, 100),
    st.randoms(),
)
def test_a_share_takes_that_many_values_whatever_the_order_of_rows(values, percent, random):
    values = sorted(values)
    data = parse({"data.known-objects": f"{percent}%"}).data

    def known(order: list[str]) -> set[str]:
        rows = pd.DataFrame({"concept": order})
        rows["qtype"] = rows["domain"] = "a"
        return {value for value, name in zip(order, domains(rows, data), strict=True) if name == "source"}

    chosen = known(values)
    shuffled = values * 2
    random.shuffle(shuffled)
    assert known(shuffled) == chosen
    assert len(chosen) == max(1, round(percent / 100 * len(values)))


def test_a_larger_share_keeps_what_a_smaller_one_knows():
    rows = frame()
    known = [
        set(rows["concept"][domains(rows, parse({"data.known-objects": f"{p}%"}).data) == "source"])
        for p in (25, 50, 75, 100)
    ]
    assert [len(k) for k in known] == [1, 2, 3, 4]
    assert known[0] < known[1] < known[2] < known[3]


def test_test_rows_share_the_boundary_of_the_train_rows():
    train = frame()
    test = train[train["concept"] != "cat"].reset_index(drop=True)
    data = parse({"data.known-objects": "50%"}).data
    known = set(train["concept"][domains(train, data) == "source"])
    assert set(test["concept"][domains(test, data, reference=train) == "source"]) == known - {"cat"}
    named = parse({"data.known-objects": "cat"}).data
    assert "source" not in domains(test, named, reference=train)


def test_columns_of_numbers_are_values_too():
    rows = frame().assign(digit=np.arange(240) % 10)
    names = domains(rows, parse({"data.object-column": "digit", "data.known-objects": "1,2"}).data)
    assert set(rows["digit"][names == "source"]) == {1, 2}


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("data.known-objects", "cat,bat", ["'bat'", "cat, dog, fox, owl"]),
        ("data.known-questions", "why", ["'why'", "count, what, where"]),
        ("data.known-styles", "-5%", ["data.known-styles", "0%"]),
        ("data.known-styles", "half%", ["data.known-styles", "'50%'"]),
        ("data.known-objects", "101%", ["data.known-objects", "100%"]),
    ],
)
def test_a_value_that_does_not_occur_is_refused_naming_those_that_do(key, value, named):
    with pytest.raises(ConfigError) as error:
        domains(frame(), parse({key: value}).data)
    for part in [key, value, *named]:
        assert part in str(error.value)


def test_known_objects_without_their_column_are_refused():
    with pytest.raises(ConfigError, match=r"known-objects.*column 'concept'.*qtype, domain, user"):
        domains(frame().drop(columns="concept"), parse({"data.known-objects": "cat"}).data)


def test_an_empty_domain_is_refused_with_the_counts_of_the_others():
    full = np.array(["source"] * 3 + ["object"] * 2)
    check_domains(full, full, ("object",))
    with pytest.raises(ConfigError, match=r"domain 'question' is empty in the train.*source 3, object 2"):
        check_domains(full, full, ("object", "question"))
    with pytest.raises(ConfigError, match=r"domain 'object' is empty in the test split.*source 3"):
        check_domains(full, full[:3], ("object",))
    with pytest.raises(ConfigError, match=r"domain 'source' is empty"):
        check_domains(full[3:], full, ())


def test_a_column_without_a_value_is_named_with_those_that_have_some():
    rows = frame().assign(domain="")
    with pytest.raises(ConfigError) as caught:
        domains(rows, parse({"data.known-styles": "flat"}).data)
    said = str(caught.value)
    assert (
        "setting 'data.known-styles' = 'flat': column 'domain' (setting 'data.style-column') is empty" in said
    )
    assert "or a column with values: " in said
    assert "concept" in said.rpartition(":")[2]


@pytest.mark.parametrize("known", ["0.5", "50%"])
def test_rows_without_a_value_are_of_a_value_of_their_own(known):
    frame = pd.DataFrame({"concept": [0.5, np.nan, 0.5, np.nan], "qtype": ""})
    found = domains(frame, parse({"data.known-objects": known}).data)
    assert found[0] == found[2] != found[1] == found[3]
