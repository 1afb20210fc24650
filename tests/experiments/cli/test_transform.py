import shutil

from cdc_flower.models import transform


def test_the_transform_of_a_pair_is_made_once_and_its_worth_is_said(command, settings, pair_folder, tmp_path):
    folder = shutil.copytree(pair_folder, tmp_path / "scenes")
    (folder / transform.FILE).unlink()
    sets = [
        part
        for key, value in {**settings, "pair.folder": folder}.items()
        for part in ("--set", f"{key}={value}")
    ]
    outputs = []
    for _ in range(2):
        code, out, err = command("transform", *sets)
        assert code == 0
        outputs.append(" ".join((err + out).split()))
    assert "had no transform" in outputs[0]
    assert "had no transform" not in outputs[1]
    assert str(folder / transform.FILE) in outputs[1].replace(" ", "")
    for words in ("error in 3 bits", "as they are", "transformed"):
        assert words in outputs[1]


def test_a_damaged_one_is_one_line(command, settings, pair_folder, tmp_path):
    folder = shutil.copytree(pair_folder, tmp_path / "scenes")
    (folder / transform.FILE).write_bytes(b"nonsense")
    sets = [
        part
        for key, value in {**settings, "pair.folder": folder}.items()
        for part in ("--set", f"{key}={value}")
    ]
    code, _, err = command("transform", *sets)
    assert code == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "not a transform" in line
    assert "delete it" in line
