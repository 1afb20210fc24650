"""Claims about models that a device loads: those that its cloud signed, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from clients.device.models import ModelsError, described, verify
from experiments.deploy import keys


@pytest.fixture
def bundle(tmp_path):
    """A bundle with models of two files, signed by the cloud in `tmp_path / "cloud"`."""
    cloud, made = tmp_path / "cloud", tmp_path / "bundle"
    for folder in (cloud, made / "models" / "pair" / "student"):
        folder.mkdir(parents=True)
    keys.authority(cloud)
    shutil.copy(cloud / "ca" / "ca.crt", made)
    files = {}
    for name in ("pair.json", "student/model.safetensors"):
        files[name] = made / "models" / "pair" / name
        files[name].write_bytes(b"w" * 100)
    (made / "models.json").write_text(
        json.dumps(keys.signed(cloud, described({"pair.folder": ("pair", files)})))
    )
    return made


def again(bundle, change, cloud=None):
    """Change what is signed; with a cloud, sign it anew."""
    about = json.loads((bundle / "models.json").read_text())
    change(about)
    if cloud is not None:
        about = keys.signed(cloud, {k: about[k] for k in ("format", "folders", "files")})
    (bundle / "models.json").write_text(json.dumps(about))


def test_models_as_they_were_signed_are_taken(bundle):
    assert verify(bundle) == {"pair.folder": bundle / "models" / "pair"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda b: (b / "models/pair/pair.json").write_bytes(b"v" * 100), "pair.json' is another file"),
        (lambda b: (b / "models/pair/pair.json").write_bytes(b"w" * 101), "pair.json' is another file"),
        (
            lambda b: (b / "models/pair/student/model.safetensors").unlink(),
            "is missing; allowed: the 100 bytes",
        ),
        (lambda b: (b / "models/pair/student/adapter.json").write_text("{}"), "is not in models.json"),
        (lambda b: (b / "models/pair/more").symlink_to(b.parent / "cloud"), "more' is a link to a folder"),
        (lambda b: (b / "models/pair/more").symlink_to("absent"), "more' is not in models.json"),
        (lambda b: (b / "models/more").mkdir() or (b / "models/more/x").touch(), "more/x' is not in models"),
        (lambda b: (b / "models/x").touch(), "models/x' is not in models.json"),
        (lambda b: (b / "models.json").unlink(), "models.json': No such file"),
        (lambda b: (b / "models.json").write_text("{}"), "no list of models"),
        (lambda b: (b / "models.json").write_text("[" * 10**5), "no list of models"),
        (lambda b: (b / "models.json").write_bytes(b" " * (2**24 + 1)), "no list of models"),
        (lambda b: (b / "ca.crt").write_text("text"), "no list of models"),
        (lambda b: again(b, lambda a: a["files"].pop()), "is not signed"),
        (lambda b: again(b, lambda a: a.update(more=1)), "is not signed"),
        (lambda b: again(b, lambda a: a.update(signature="AAAA")), "is not signed"),
    ],
)
def test_other_models_are_refused(bundle, change, named):
    change(bundle)
    with pytest.raises(ModelsError, match=named):
        verify(bundle)


def test_the_signature_of_another_cloud_does_not_do(bundle, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    keys.authority(other)
    again(bundle, lambda about: None, other)
    with pytest.raises(ModelsError, match="is not signed"):
        verify(bundle)


def test_a_certificate_of_the_authority_for_something_else_does_not_do(bundle, tmp_path):
    cloud = tmp_path / "cloud"
    keys.server(cloud, ["localhost"])
    again(bundle, lambda about: about.update(certificate=(cloud / "server.crt").read_text()))
    with pytest.raises(ModelsError, match="is not signed"):
        verify(bundle)


@pytest.mark.parametrize("name", ["../ca.crt", "/etc/passwd", "student/../pair.json", "", "a//b", "."])
def test_a_name_that_leads_out_of_its_folder_is_refused_though_it_is_signed(bundle, tmp_path, name):
    again(bundle, lambda about: about["files"][0].update(name=name), tmp_path / "cloud")
    with pytest.raises(ModelsError):
        verify(bundle)


def test_the_module_needs_no_torch():
    code = (
        "import sys, clients.device.models; assert 'torch' not in sys.modules and 'flwr' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
