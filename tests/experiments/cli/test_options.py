"""A command says which preset it takes, and stops where it is told to."""

from experiments.cli import compare as comparing


def test_the_preset_that_is_used_is_named_in_one_line(command):
    _, _, err = command("compare", "--set", "run.method=magic")
    assert err.splitlines()[0] == "preset scenes: experiments/presets/scenes.toml"


def test_ctrl_c_ends_with_130(command, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(comparing.options, "chosen", interrupted)
    code, _, err = command("compare")
    assert (code, err) == (130, "interrupted\n")
