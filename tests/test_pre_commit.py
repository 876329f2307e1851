"""The hook, run by pre-commit on a repository with models, from a repository with this project.

pre-commit makes its own environment and installs the project there with pip, as it would for
anybody. Only the dependencies are not downloaded again: they are those of the running interpreter.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
HOOKS = ROOT / ".pre-commit-hooks.yaml"
PROJECT = ("pyproject.toml", "README.md", "LICENSE", ".pre-commit-hooks.yaml")


def pre_commit(*arguments: str, folder: Path, env: dict[str, str]) -> tuple[int, str]:
    """(status, everything that it printed)."""
    command = [sys.executable, "-m", "pre_commit", *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def commit(folder: Path, env: dict[str, str]) -> str:
    """Everything in a folder as a repository of one commit; its hash."""
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=folder, env=env, check=True)
    head = ["git", "rev-parse", "HEAD"]
    return subprocess.check_output(head, cwd=folder, env=env, text=True).strip()


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    """Without settings of the user, without a network, with the dependencies that are installed."""
    home = tmp_path_factory.mktemp("home")
    packages = home / "packages"
    packages.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "gradscope" not in entry.name.lower() and entry.suffix != ".pth":
            (packages / entry.name).symlink_to(entry)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "PYTHON", "PIP_"))}
    who = {f"GIT_{who}_{what}": "nobody@example.org" for who in ("AUTHOR", "COMMITTER")
           for what in ("NAME", "EMAIL")}  # fmt: skip
    return kept | who | {
        "HOME": str(home), "PRE_COMMIT_HOME": str(home / "pre-commit"),
        "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1",
        "PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1",
        "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0",  # 0 switches the isolation off
    }  # fmt: skip


@pytest.fixture(scope="module")
def repository(tmp_path_factory, env):
    """With two models, and a configuration that names the project's repository and commit."""
    project = tmp_path_factory.mktemp("project")
    for name in PROJECT:
        shutil.copy(ROOT / name, project / name)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "gradscope", project / "gradscope", ignore=ignored)
    revision = commit(project, env)
    folder = tmp_path_factory.mktemp("models")
    for name in ("healthy_tanh.pt", "deep_tanh.pt", "digits.npz"):
        shutil.copy(ROOT / "sample_models" / name, folder / name)
    (folder / "notes.txt").write_text("no model\n", encoding="utf-8")
    hook = {"id": "gradscope-check", "args": ["--format=concise", "--data=digits.npz"]}
    config = {"repos": [{"repo": str(project), "rev": revision, "hooks": [hook]}]}
    (folder / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    commit(folder, env)
    return folder


def test_the_manifest_is_valid(env):
    assert pre_commit("validate-manifest", str(HOOKS), folder=ROOT, env=env) == (0, "")


@pytest.mark.slow
def test_models_are_checked_and_nothing_else(repository, env):
    status, text = pre_commit("run", "--all-files", folder=repository, env=env)
    assert status == 1
    assert "- exit code: 1" in text
    assert "deep_tanh.pt: 0/tanh ... 38/tanh: error GS101 vanishing-gradient" in text
    assert "2 models: 1 unhealthy, 1 healthy;" in text
    assert "notes.txt" not in text


@pytest.mark.slow
def test_a_commit_of_a_healthy_model_passes(repository, env):
    status, text = pre_commit("run", "--files", "healthy_tanh.pt", folder=repository, env=env)
    assert (status, text.rpartition(".")[2].strip()) == (0, "Passed")
    status, text = pre_commit("run", "--files", "notes.txt", folder=repository, env=env)
    assert (status, text.rpartition(")")[2].strip()) == (0, "Skipped")
