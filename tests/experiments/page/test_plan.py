"""The page's file becomes cells in a useful order, each once; what it cannot be is refused."""

import pytest

from cdc_flower.config import ConfigError, parse
from experiments.page import plan as planning
from experiments.page.plan import TEACHER
from experiments.run import settings
from strategies.method import method


def test_cells_come_arms_first_then_seeds_then_data_and_each_once(plan):
    cells = plan.cells()
    assert [(c.data, c.arm, c.seed) for c in cells[:5]] == [
        *(("scenes", arm, 0) for arm in (TEACHER, "static", "cdc", "random tokens")),
        ("scenes", TEACHER, 1),
    ]
    assert len(cells) == len({cell.path for cell in cells}) == 2 * 2 * 4 + 2 + (1 + 2)
    assert cells[-1].pair == "weak"
    assert cells[-1].arm == "cdc"  # the arm without a teacher is made with the first pair alone
    variant = next(cell for cell in cells if cell.arm == "cdc, 2 kB")
    assert variant.settings == {"run.method": "cdc", "uplink.budget": 2000}
    assert str(variant.path) == "scenes/cdc-2-kb-0.json"


def test_settings_of_the_page_are_those_of_all_cells(page_file):
    page_file.write_text(page_file.read_text().replace("[arms.", "[settings]\nrun.rounds = 3\n[arms.", 1))
    plan = planning.read(page_file)
    assert all(cell.settings["run.rounds"] == 3 for cell in plan.cells())
    assert plan.cells()[0].arm == TEACHER


def test_parts_data_and_arms_choose_cells(plan):
    def chosen(*only, seeds=9):
        return {(c.data, c.arm, c.seed) for c in plan.cells(only, seeds)}

    assert chosen("main", "emoji", "cdc") == {("emoji", "cdc", 0), ("emoji", "cdc", 1)}
    assert chosen("budgets", "cdc") == {("scenes", "cdc, 1 kB", 0), ("scenes", "cdc, 2 kB", 0)}
    assert len(chosen("main", "scenes", seeds=1)) == 4
    with pytest.raises(ConfigError, match="--only 'nothing'; allowed: main, ladder"):
        plan.cells(("nothing",))


def test_all_methods_are_all_but_those_that_are_named(page_file):
    page_file.write_text(
        "data = ['scenes']\nparts.main = {data = ['scenes'], methods = 'all', without = ['cdc']}"
    )
    arms = planning.read(page_file).parts["main"].arms
    assert "cdc" not in arms
    assert {"static", "labelled", "fedavg_lora"} <= set(arms)


def test_an_arm_gets_what_its_method_needs_and_may_say_otherwise(page_file):
    page_file.write_text("""
data = ["scenes"]
[arms."own rate"]
run.method = "cema"
cema.lr = 0.5
[arms."all layers"]
run.method = "cema"
pair.adapter = "lora"
[parts.main]
data = ["scenes"]
arms = ["own rate", "all layers"]
""")
    needs, arms = method("cema").needs, planning.read(page_file).parts["main"].arms
    assert needs["pair.adapter"] == "norms"
    assert arms["own rate"] == {"run.method": "cema", **needs, "cema.lr": 0.5}
    assert arms["all layers"]["pair.adapter"] == "lora"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parts = 3", "'parts'; allowed: a table of tables"),
        ("data = ['scenes']\nparts.main = {methods = ['cdc'], summary = ['x']}", "summary 'x'; allowed: cdc"),
        ("pars.main.seeds = 3", "'pars'; allowed: arms, data, edition, parts, settings"),
        ("edition = 'x'", "edition = 'x'; allowed: a whole number"),
        ("parts.main.seeds = 0", "part 'main': seeds = 0; allowed: 1 to 100"),
        ("parts.main.kind = 'cake'", "kind = 'cake'; allowed: main, ladder"),
        ("parts.main.data = ['x']", "part 'main': data 'x'; allowed: "),
        ("parts.main = {methods = 'all', without = ['cake']}", "without 'cake'; allowed: methods, where"),
        ("parts.main = {methods = ['cdc'], without = ['tent']}", "without 'tent'; allowed: methods, where"),
        ("parts.main.settings.run.sed = 3", "part 'main': unknown setting 'run.sed'"),
        ("parts.main.settings.run.seed = 3", "part 'main': sets 'run.seed'; allowed: any other"),
        ("parts.main.arms = ['../x']", "name '../x'; allowed: letters"),
        ("data = ['a']\nparts.main = {data = ['a'], pairs = {b = ['x']}}", "pairs of 'b'; allowed: a"),
        ("data = ['a']\nparts.main = {data = ['a'], pairs = {a = 'x'}}", "pairs = 'x'; allowed: a list"),
        ("arms.cdc.cloud.lr = 1.0", "arm 'cdc' is a method's name"),
        ("[[", "allowed: a TOML file"),
    ],
)
def test_a_page_that_cannot_be_is_refused(tmp_path, text, message):
    path = tmp_path / "page.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="page") as refused:
        planning.read(path)
    assert message in str(refused.value)


def test_one_name_is_one_cell(tmp_path):
    path = tmp_path / "page.toml"
    path.write_text(
        "data = ['scenes']\n"
        "[parts.one]\ndata = ['scenes']\nmethods = ['cdc']\n"
        "[parts.two]\ndata = ['scenes']\nmethods = ['cdc']\nsettings.cloud.lr = 0.1\n"
    )
    with pytest.raises(ConfigError, match="'cdc' of 'scenes' is two things in the parts 'one' and 'two'"):
        planning.read(path)


def test_data_may_have_pairs_of_their_own(tmp_path):
    path = tmp_path / "page.toml"
    path.write_text(
        "data = ['scenes', 'emoji']\n"
        "[parts.one]\ndata = ['scenes', 'emoji']\nmethods = ['cdc']\n"
        "pairs.emoji = ['emoji', 'emoji-1']\n"
    )
    found = planning.read(path)
    assert found.parts["one"].pairs == {"scenes": ("",), "emoji": ("", "emoji-1")}
    assert [(c.data, c.pair) for c in found.cells() if c.arm == "cdc"] == [
        ("scenes", ""),
        ("emoji", ""),
        ("emoji", "emoji-1"),
    ]


def test_what_is_not_installed_is_skipped_with_its_reason(page_file):
    page_file.write_text(page_file.read_text().replace('["static", "cdc"]', '["static", "cdc", "magic"]'))
    found = planning.read(page_file)
    assert list(found.skipped) == ["magic"]
    assert "no method of this name is installed" in found.skipped["magic"]


def test_the_page_of_the_documents_can_be_made_whole():
    found = planning.read()
    assert found.skipped == {}
    assert {"main", "ladder", "crossing", "budgets", "noniid", "pairs"} <= set(found.parts)
    for cell in found.cells(seeds=1):
        parse({**settings.preset(cell.data), **cell.settings})
