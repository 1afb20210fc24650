"""Tables are whole where a file or a pipe reads."""

from experiments.cli.tables import new_table, show


def test_a_pipe_gets_every_cell_whole(capsys):
    made = new_table("name", "figure")
    made.add_row("x" * 80, "1" * 80)
    show(made)
    assert "x" * 80 in capsys.readouterr().out
