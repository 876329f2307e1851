"""``action.yml``: valid, without a way for an input to become a command, and run step by step.

The steps' scripts are run as the runner runs them, with its files and variables. What stands behind
``uses:`` (another action) is not run; only what it is given is looked at.
"""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parent.parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = ACTION["runs"]["steps"]
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


@dataclass
class Job:
    """What the runner keeps of one use of the action.

    Attributes:
        folder: the repository.
        inputs: given ones over the defaults.
        outputs: of the steps, by id.
        used: (action, what it was given), of the steps that were not skipped.
        printed: by the scripts.
        status: of the last script; the first that is not 0 ends the job.
    """

    folder: Path
    inputs: Mapping[str, str]
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    used: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    printed: str = ""
    status: int = 0

    def value(self, text: str) -> str:
        """A text with its expressions replaced."""
        return EXPRESSION.sub(lambda m: self._lookup(m[1]), text)

    def holds(self, condition: str) -> bool:
        """``a != 'b' && c == 'd'``."""
        expression = EXPRESSION.fullmatch(condition)[1]
        for part in expression.split("&&"):
            left, operator, right = part.split()
            if (self._lookup(left) == right.strip("'")) != (operator == "=="):
                return False
        return True

    def _lookup(self, name: str) -> str:
        kind, _, rest = name.partition(".")
        if kind == "inputs":
            return self.inputs[rest]
        step, _, output = rest.partition(".outputs.")
        assert kind == "steps", name
        return self.outputs.get(step, {}).get(output, "")

    @property
    def summary(self) -> str:
        """What was written to the job's summary."""
        return (self.folder / ".runner" / "summary").read_text(encoding="utf-8")

    def run(self) -> Job:
        """All steps."""
        for number, step in enumerate(STEPS):
            if self.status or ("if" in step and not self.holds(step["if"])):
                continue
            if "uses" in step:
                given = {k: self.value(v) for k, v in step["with"].items()}
                self.used.append((step["uses"], given))
            else:
                self._script(step, self.folder / ".runner" / f"output-{number}")
        return self

    def _script(self, step: Mapping[str, object], output: Path) -> None:
        runner = self.folder / ".runner"
        env = {
            "PATH": f"{runner / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT), "HOME": str(runner), "OMP_NUM_THREADS": "1",
            "GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(runner / "summary"),
            "GITHUB_ACTION_PATH": str(ROOT), "RUNNER_TEMP": str(runner / "temp"),
            **{k: self.value(v) for k, v in step.get("env", {}).items()},
        }  # fmt: skip
        output.touch()
        script = runner / "script.sh"
        script.write_text(step["run"], encoding="utf-8")
        bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]  # as the runner
        done = subprocess.run(
            bash, cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )
        self.status, self.printed = done.returncode, self.printed + done.stdout + done.stderr
        lines = output.read_text(encoding="utf-8").splitlines()
        if "id" in step:
            self.outputs[step["id"]] = dict(line.split("=", 1) for line in lines)


@pytest.fixture
def use(tmp_path, monkeypatch):
    """Runs the action on a repository with two models, with some inputs given."""
    (tmp_path / "models").mkdir()
    for name in ("healthy_tanh.pt", "deep_tanh.pt"):
        data = (ROOT / "sample_models" / name).read_bytes()
        (tmp_path / "models" / name).write_bytes(data)
    (tmp_path / "digits.npz").write_bytes((ROOT / "sample_models" / "digits.npz").read_bytes())
    runner = tmp_path / ".runner"
    (runner / "bin").mkdir(parents=True)
    (runner / "temp").mkdir()
    (runner / "summary").touch()
    python = shlex.quote(sys.executable)
    _program(runner / "bin" / "gradscope", f'exec {python} -P -m gradscope "$@"')
    _program(runner / "bin" / "python", f'printf "%s\\n" "$@" > {runner}/pip')

    def run(**given: str) -> Job:
        defaults = {k: v.get("default", "") for k, v in ACTION["inputs"].items()}
        inputs = defaults | {k.replace("_", "-"): v for k, v in given.items()}
        assert inputs.keys() == defaults.keys()
        return Job(tmp_path, inputs).run()

    return run


def _program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def test_it_is_valid():
    place = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((place / "github-actions.json").read_text(encoding="utf-8"))
    jsonschema.Draft7Validator(schema).validate(ACTION)


def test_no_input_can_become_a_command():
    """An expression in a script is replaced before bash reads it."""
    for step in STEPS:
        assert "${{" not in step.get("run", ""), step["name"]
        for value in step.get("env", {}).values():
            assert EXPRESSION.fullmatch(value), value


def test_every_input_is_described_and_used():
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    for name, entry in ACTION["inputs"].items():
        assert entry["description"].endswith((".", "all")), name
        assert re.search(rf"inputs\.{name}\b", text), name


def test_findings_fail_the_job_after_everything_is_reported(use):
    job = use(models="models/*.pt", data="digits.npz", args="--samples=64")
    assert job.status == 1
    assert job.outputs["check"] == {"status": "1", "sarif-file": "gradscope.sarif"}
    log = json.loads((job.folder / "gradscope.sarif").read_text(encoding="utf-8"))
    found = {r["ruleId"] for r in log["runs"][0]["results"]}
    assert "GS101" in found
    assert "::error file=models/deep_tanh.pt,title=GS101 vanishing-gradient::" in job.printed
    assert "FAIL     models/deep_tanh.pt" in job.printed
    assert "❌ failed" in job.summary
    assert "models/healthy\\_tanh.pt" in job.summary
    assert job.used == [
        ("actions/setup-python@v6", {"python-version": "3.12"}),
        ("github/codeql-action/upload-sarif@v4",
         {"sarif_file": "gradscope.sarif", "category": "gradscope"}),
    ]  # fmt: skip


def test_a_healthy_model_passes(use):
    job = use(models="models/healthy_tanh.pt", data="digits.npz", python_version="",
              upload_sarif="false", job_summary="false", sarif_file="models/log.sarif")  # fmt: skip
    assert job.status == 0
    assert job.outputs["check"] == {"status": "0", "sarif-file": "models/log.sarif"}
    assert job.used == []
    assert job.summary == ""


def test_what_cannot_be_served_ends_in_status_2_and_is_uploaded_nowhere(use):
    job = use(models="models/nothing.pt\n", args="--no-such-option")
    assert job.status == 2
    assert job.outputs["check"] == {"status": "2"}
    assert "gradscope: No such option" in job.printed
    assert [name for name, _ in job.used] == ["actions/setup-python@v6"]


HOSTILE = [
    "$(touch pwned)", "`touch pwned`", "; touch pwned", "' ; touch pwned; '", '"; touch pwned; "',
    "| touch pwned", "--help", "*", "a\\", "${HOME}", "status=0", "-n", "%s", " x ",
]  # fmt: skip


@pytest.mark.parametrize("name", ACTION["inputs"])
def test_hostile_inputs_are_only_texts(recorded, name):
    """Each line is one argument, as it is written; of an input that is one value, all lines are."""
    job, given = recorded(**{name.replace("-", "_"): "\n".join(HOSTILE)})
    assert not list(job.folder.rglob("pwned"))
    expected = {
        "models": HOSTILE, "args": HOSTILE,
        "select": [f"--select={line}" for line in HOSTILE],
        "ignore": [f"--ignore={line}" for line in HOSTILE],
    }  # fmt: skip
    whole = "\n".join(HOSTILE)
    if name in ("data", "val", "arch", "fail-on", "baseline"):
        assert f"--{name}={whole}" in given["gradscope"]
    elif name == "sarif-file":
        assert f"--output=sarif:{whole}" in given["gradscope"]
    elif name == "install":
        assert given["python"][-len(HOSTILE) :] == HOSTILE
    elif name in expected:
        joined = "\0".join(given["gradscope"])
        assert "\0".join(expected[name]) in joined
    assert job.outputs["check"] == {"status": "0"}


@pytest.fixture
def recorded(use, tmp_path):
    """Runs the action with a gradscope that only writes down its arguments, and clears them."""
    bin_ = tmp_path / ".runner" / "bin"

    def run(**given: str) -> tuple[Job, dict[str, list[str]]]:
        for name in ("gradscope", "python"):
            file = tmp_path / ".runner" / f"{name}-arguments"
            file.unlink(missing_ok=True)
            _program(bin_ / name, f'printf "%s\\0" "$@" > {file}')
        job = use(**given)
        found = {}
        for name in ("gradscope", "python"):
            file = tmp_path / ".runner" / f"{name}-arguments"
            text = file.read_text(encoding="utf-8") if file.exists() else ""
            found[name] = text.split("\0")[:-1]
        return job, found

    return run


def test_the_command(recorded):
    job, given = recorded(
        models="a.pt\n\nb c.pt\n", data="d.npz", val="v.npz", arch="f.py:g", fail_on="warning",
        select="GS1\nGS2\n", ignore="GS203", baseline="known.json", args="--samples=all",
    )  # fmt: skip
    page = job.folder / ".runner" / "temp" / "gradscope-summary.md"
    assert given["gradscope"] == [
        "check", "--format=terminal", "--format=github", "--data=d.npz", "--val=v.npz",
        "--arch=f.py:g", "--fail-on=warning", "--baseline=known.json", "--select=GS1",
        "--select=GS2", "--ignore=GS203", "--samples=all", "--output=sarif:gradscope.sarif",
        f"--output=markdown:{page}", "--", "a.pt", "b c.pt",
    ]  # fmt: skip


def test_what_is_installed(recorded):
    pip = ["-m", "pip", "install", "--disable-pip-version-check"]
    _, given = recorded()
    assert given["python"] == [*pip, "-c", f"{ROOT}/constraints.txt", str(ROOT)]
    _, given = recorded(install="gradscope-cli==0.1.0\n-c\nmy constraints.txt\n")
    assert given["python"] == [*pip, "gradscope-cli==0.1.0", "-c", "my constraints.txt"]
    _, given = recorded(install="none")
    assert given["python"] == []
