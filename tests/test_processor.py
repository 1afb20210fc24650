"""A processor's name and numbers, as Linux says them."""

import platform

import pytest

from cdc_flower import processor

INTEL = (
    "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 207\n"
    "model name\t: Intel(R) Xeon(R) Processor\nstepping\t: 2\n"
)
BOARD = "processor\t: 0\nCPU part\t: 0xd0b\n\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"


@pytest.fixture
def said(tmp_path, monkeypatch):
    def read(text):
        monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
        if text is not None:
            (tmp_path / "cpuinfo").write_bytes(text.encode("latin-1"))
        processor.processor.cache_clear()
        return processor.processor()

    yield read
    processor.processor.cache_clear()


def test_name_and_numbers_of_the_first_core(said):
    two = INTEL + INTEL.replace("207", "143")
    assert said(two) == "Intel(R) Xeon(R) Processor, cpu family 6, model 207, stepping 2"
    assert said(BOARD) == "Raspberry Pi 5 Model B Rev 1.0, CPU part 0xd0b"


@pytest.mark.parametrize("text", [None, "", "nothing\n", "model name\t:\n", "\xff\xfe"])
def test_the_architecture_where_the_system_does_not_say(said, text):
    assert said(text) == platform.machine()
