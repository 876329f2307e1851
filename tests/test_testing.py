"""``assert_healthy`` in other people's tests, run by pytest as they would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "sample_models"

TESTS = f"""
import numpy, pytest, torch
from gradscope.testing import UnhealthyModelError, assert_healthy

SAMPLES = {str(SAMPLES)!r}
DIGITS, VAL = SAMPLES + "/digits.npz", SAMPLES + "/digits_val.npz"

def test_file_that_works():
    report = assert_healthy(SAMPLES + "/healthy_tanh.pt", DIGITS, val=VAL, samples=64)
    assert report.verdict == "healthy"

def test_file_that_does_not():
    assert_healthy(SAMPLES + "/deep_tanh.pt", DIGITS, val=VAL, samples=64)

def test_module_in_memory():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    assert_healthy(model, torch.randn(32, 8))

def test_no_such_file():
    assert_healthy("nothing.pt")

def test_the_error_has_the_report():
    with pytest.raises(UnhealthyModelError) as caught:
        assert_healthy(SAMPLES + "/deep_tanh.pt", DIGITS, samples=64)
    assert caught.value.report.errors

def test_fixture(assert_healthy):
    assert_healthy(SAMPLES + "/healthy_tanh.pt", DIGITS, samples=64)

def test_fixture_that_fails(assert_healthy):
    assert_healthy(SAMPLES + "/deep_tanh.pt", DIGITS, samples=64)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """(what pytest printed, its XML, exit status) of those tests, with the plugin as installed."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "test_models.py").write_text(TESTS, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", encoding="utf-8")
    installed = folder / "site" / "project-0.dist-info"
    installed.mkdir(parents=True)
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    name, module = next(iter(entry["project"]["entry-points"]["pytest11"].items()))
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: project\nVersion: 0\n")
    (installed / "entry_points.txt").write_text(f"[pytest11]\n{name} = {module}\n")
    env = dict(os.environ, PYTHONPATH=f"{ROOT}{os.pathsep}{folder / 'site'}", COLUMNS="100")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--junitxml=x.xml"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return done.stdout, ET.parse(folder / "x.xml"), done.returncode


def test_in_a_project_of_ones_own(pytester: pytest.Pytester, pytestconfig: pytest.Config):
    """Through pytest's own harness: the fixture and the function. In a process of its own, since
    torch cannot be imported twice in one."""
    pytester.makepyfile(
        f"""
        from gradscope.testing import assert_healthy as function

        MODELS, DATA = {str(SAMPLES)!r}, {str(SAMPLES / "digits.npz")!r}

        def test_good(assert_healthy):
            assert assert_healthy(MODELS + "/healthy_tanh.pt", DATA, samples=64).errors == ()

        def test_bad():
            function(MODELS + "/deep_tanh.pt", DATA, samples=64)
        """
    )
    known = pytestconfig.pluginmanager.has_plugin("gradscope")  # installed with its entry point
    plugin = () if known else ("-p", "gradscope.pytest_plugin")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *plugin)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*deep_tanh.pt is unhealthy*", "*test_good  healthy: total*"])


def section(text: str, name: str) -> str:
    """What pytest says of one failure."""
    after = text.split(f"_ {name} _", 1)[1]
    return after.split("\n____", 1)[0].split("\n====", 1)[0]


def test_what_passes_and_what_fails(ran):
    text, _, status = ran
    assert status == 1
    assert "4 failed, 3 passed" in text


def test_a_failure_shows_verdict_findings_and_advice(ran):
    said = section(ran[0], "test_file_that_does_not")
    assert "deep_tanh.pt is unhealthy (fail_on='error')" in said
    assert "GS101 vanishing-gradient  0/tanh ... 38/tanh" in said
    assert "decades (limit -2.5)" in said
    assert "Xavier" in said
    assert "gradscope rule GS101" in said


def test_a_failure_shows_the_test_and_nothing_of_gradscope(ran):
    said = section(ran[0], "test_file_that_does_not")
    assert ">       assert_healthy(SAMPLES" in said or ">   " in said
    assert "gradscope/testing.py" not in said
    assert "pipeline.py" not in said


def test_nan_in_memory(ran):
    said = section(ran[0], "test_module_in_memory")
    assert "Sequential is unhealthy" in said
    assert "GS401" in said


def test_what_cannot_be_served_is_no_assertion(ran):
    said = section(ran[0], "test_no_such_file")
    assert "gradscope.errors.LoadError: nothing.pt: " in said


def test_the_fixture_tells_of_its_models_at_the_end(ran):
    text, _, _ = ran
    models = text.split("= models =", 1)[1]
    assert "test_models.py::test_fixture  healthy: total" in models
    assert "test_models.py::test_fixture_that_fails  unhealthy: total -" in models
    assert re.search(
        r"unhealthy: .*; (1 error|[2-9] errors), (1 warning|[02-9] warnings)$", models, re.M
    )
    assert models.count("test_models.py::test_fixture  ") == 1  # setup and teardown tell nothing


def test_the_fixture_writes_into_junit(ran):
    _, xml, _ = ran
    values = [p.get("value") for p in xml.iter("property") if p.get("name") == "gradscope"]
    assert [v.split(":")[0] for v in values] == ["healthy", "unhealthy"]


def test_the_gate_is_that_of_check():
    import torch

    from gradscope.errors import GradscopeError
    from gradscope.testing import assert_healthy

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    x = torch.randn(32, 8)
    assert_healthy(model, x)
    with pytest.raises(AssertionError, match="fail_on='undetermined'"):
        assert_healthy(model, fail_on="undetermined")
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    with pytest.raises(AssertionError, match="GS401"):
        assert_healthy(model, x)
    assert_healthy(model, x, ignore=("GS4",))
    with pytest.raises(GradscopeError, match="ignore: leaves no rule"):
        assert_healthy(model, x, ignore=("GS",))
    with pytest.raises(GradscopeError, match="fail_on: there is no 'errors'"):
        assert_healthy(model, x, fail_on="errors")


def test_ignores_of_the_settings_file_hold(tmp_path, monkeypatch):
    import torch

    from gradscope.testing import assert_healthy

    model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match="GS401"):
        assert_healthy(model, torch.zeros(4, 8))
    text = '[[ignore]]\nrule = "GS"\nreason = "an untrained stand-in"\n'
    (tmp_path / "gradscope.toml").write_text(text, encoding="utf-8")
    assert_healthy(model, torch.zeros(4, 8))


def test_loading_the_plugin_imports_no_torch():
    code = "import sys, gradscope.pytest_plugin; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
