"""Every module has a test file at its own path; the others are named, with where they are held."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("cdc_flower", "strategies", "clients", "experiments")
ELSEWHERE = {
    "cdc_flower/downlink/baselines.py": "tests/downlink/test_codecs.py",
    "cdc_flower/downlink/search.py": "tests/downlink/test_dyadic.py",
    "cdc_flower/fleet/settings.py": "tests/test_config.py",
    "cdc_flower/models/vlm.py": "tests/models/test_inputs.py",
    "cdc_flower/plugins.py": "tests/strategies/test_method.py",
    "cdc_flower/wire/coder_models.py": "tests/wire/test_coder.py",
    "cdc_flower/wire/keys.py": "tests/strategies/test_runs.py",
    "cdc_flower/wire/messages.py": "tests/fleet/engines/test_local_grid.py",
    "strategies/accuracy.py": "tests/strategies/test_runs.py",
    "strategies/checks.py": "tests/strategies/test_runs.py",
    "strategies/cotta.py": "tests/strategies/test_on_device.py",
    "strategies/fedprox.py": "tests/strategies/test_fedavg.py",
    "strategies/finetune.py": "tests/strategies/test_on_device.py",
    "strategies/local.py": "tests/strategies/test_on_device.py",
    "strategies/run.py": "tests/strategies/test_runs.py",
    "strategies/served/settings.py": "tests/experiments/deploy/test_settings.py",
    "strategies/static.py": "tests/strategies/test_runs.py",
    "strategies/tent.py": "tests/strategies/test_on_device.py",
    "cdc_flower/stages.py": "tests/test_config.py",
    "clients/counts.py": "tests/clients/test_cdc.py",
    "clients/static.py": "tests/strategies/test_runs.py",
    "experiments/bench/apps.py": "tests/experiments/bench/test_fleet.py",
    "experiments/controls/deployed.py": "tests/deploy/test_round.py",
}
"""Module -> the tests that hold it, where it is only names, or can only be seen from a whole run."""


def mirror(module: str) -> Path:
    """cdc_flower/x/y.py -> tests/x/test_y.py; strategies/z.py -> tests/strategies/test_z.py."""
    path = Path(module)
    parts = path.parts[1:] if path.parts[0] == "cdc_flower" else path.parts
    return Path("tests", *parts[:-1], f"test_{path.name}")


def test_every_module_has_its_tests_at_the_same_path():
    modules = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name != "__init__.py"
    ]
    missing = [m for m in modules if m not in ELSEWHERE and not (ROOT / mirror(m)).exists()]
    assert missing == []
    assert [m for m in ELSEWHERE if m not in modules or (ROOT / mirror(m)).exists()] == []
    assert [held for held in ELSEWHERE.values() if not (ROOT / held).exists()] == []
