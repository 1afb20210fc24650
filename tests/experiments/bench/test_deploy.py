"""The app that does nothing, beside which a deployment is measured, is Python."""

import ast

from experiments.bench.deploy import CLIENT, SERVER


def test_the_empty_app_is_python_and_asks_every_device_in_every_round():
    server = SERVER.format(devices=3, path="/tmp/x y", rounds=4)
    assert {type(node) for node in ast.parse(server).body} >= {ast.ImportFrom, ast.FunctionDef}
    assert "< 3:" in server
    assert "range(4 + 1)" in server
    assert "'/tmp/x y'" in server
    ast.parse(CLIENT)
