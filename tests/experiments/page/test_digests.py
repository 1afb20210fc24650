"""A cell depends on its method's source, and not on what is said about it."""

from cdc_flower.config import parse
from experiments.page import digests
from strategies.method import methods

SOURCE = '''"""What it is."""

def double(x):  # twice
    """Of a number."""
    text = "# no comment"

    return 2 * x
'''


def test_words_about_source_do_not_count_and_source_does():
    other = SOURCE.replace("What it is.", "Another").replace("# twice", "# two times").replace("\n\n", "\n")
    assert digests.plain(SOURCE) == digests.plain(other)
    assert '"# no comment"' in digests.plain(SOURCE)
    assert digests.plain(SOURCE) != digests.plain(SOURCE.replace("2 * x", "3 * x"))


def test_a_method_is_its_strategy_its_device_work_and_what_these_learn_with():
    cdc = digests.modules("cdc")
    assert {"strategies.cdc", "clients.cdc", "cdc_flower.cloud.distill", "cdc_flower.downlink.dyadic"} <= set(
        cdc
    )
    assert not {"strategies.fleet", "clients.task", "cdc_flower.models.vlm"} & set(cdc)
    assert {"strategies.fedprox", "strategies.fedavg", "clients.fedavg"} <= set(
        digests.modules("fedprox_lora")
    )
    assert "strategies.fedprox" not in digests.modules("fedavg_lora")
    assert [
        name for name in methods() if not any(m.startswith("clients.") for m in digests.modules(name))
    ] == []
    assert len({digests.of_method(name) for name in ("static", "cdc", "fedavg_lora", "fedprox_lora")}) == 4


def test_pair_and_data_are_known_by_their_content(settings, shared):
    found = digests.of_pair_and_data(parse(settings))
    assert set(found) == {"pair", "data"}
    assert found["data"] != digests.of_pair_and_data(parse({**settings, "data.scenes-train": 81}))["data"]
