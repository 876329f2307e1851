"""What the project says about itself, and what it must not say."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from gradscope import __version__

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# In two parts, so that this file passes its own test.
FORBIDDEN = (
    "/wo" + "rk/",
    "/ro" + "ot/",
    "pypi" + ".org",
    "python" + "hosted",
    "download." + "pytorch",
    "find" + "-links",
    "index" + "-url",
)


def tracked() -> list[Path]:
    """Text files under version control; none outside of a checkout."""
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("no git checkout")
    binary = {".arrow", ".onnx", ".pt", ".npz", ".safetensors", ".png"}
    files = [ROOT / name for name in done.stdout.split("\0") if name]
    return [f for f in files if f.suffix not in binary and f.is_file()]


def test_installed_version() -> None:
    try:
        assert version("gradscope-cli") == __version__
    except PackageNotFoundError:
        pytest.skip("gradscope-cli is not installed here")


def test_no_machine_and_no_host() -> None:
    """Paths of one machine and hosts of registries do not belong into the repository."""
    for file in tracked():
        text = file.read_text(encoding="utf-8")
        found = [word for word in FORBIDDEN if word in text]
        assert not found, f"{file.relative_to(ROOT)}: {found}"


def test_install_names_our_distribution() -> None:
    """Another project's distribution has the name of our command."""
    for file in tracked():
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"(pip|uv|pipx) install ([^\n]* )?gradscope(?!-cli)\b", text), file


def test_dependencies_are_pinned_and_explained() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    project = PROJECT["project"]
    for needed in (*project["dependencies"], *project["optional-dependencies"]["dev"]):
        name, _, floor = needed.partition(">=")
        assert floor, needed
        assert re.search(rf"^{name}==", constraints, re.MULTILINE), needed
    for needed in project["dependencies"]:
        place = next(i for i, line in enumerate(lines) if f'"{needed}"' in line)
        assert lines[place - 1].strip().startswith("#"), f"why {needed}?"


def test_changelog_has_an_unreleased_section() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
