"""Tables are whole where a file or a pipe reads, and files that cannot be written are refused early."""

import pytest

from cdc_flower.config import ConfigError
from experiments.cli.tables import new_table, show, writable


def test_a_pipe_gets_every_cell_whole(capsys):
    made = new_table("name", "figure")
    made.add_row("x" * 80, "1" * 80)
    show(made)
    assert "x" * 80 in capsys.readouterr().out


@pytest.mark.parametrize("bad", [".", "nowhere/x.json"])
def test_what_is_no_file_to_write_is_refused(tmp_path, monkeypatch, bad):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="allowed: a file in a folder that is there"):
        writable(tmp_path / bad)
    writable(tmp_path / "x.json")
