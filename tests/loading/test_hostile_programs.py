"""Hostile scripts and exported programs: refused in one line, nothing run, nothing written."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gradscope.cli.main import main
from gradscope.config import LoadSettings
from gradscope.errors import GradscopeError, LoadError
from gradscope.loading import load_model
from tests.hostile import CANARY
from tests.hostile_exports import HARMLESS_EXPORTS, HOSTILE_EXPORTS
from tests.hostile_scripts import HOSTILE_SCRIPTS
from tests.loading.test_hostile import listing

pytestmark = pytest.mark.filterwarnings("ignore")
HOSTILE_PROGRAMS = {**HOSTILE_SCRIPTS, **HOSTILE_EXPORTS}


@pytest.mark.parametrize("name", HOSTILE_PROGRAMS)
def test_refused_and_nothing_happens(name: str, tmp_path: Path):
    path = HOSTILE_PROGRAMS[name](tmp_path)
    before = listing(tmp_path)
    with pytest.raises(LoadError) as error:
        load_model(str(path), LoadSettings())
    assert error.value.exit_status == 2
    assert "\n" not in str(error.value)
    assert listing(tmp_path) == before
    assert not (tmp_path / CANARY).exists()


@pytest.mark.parametrize("name", HOSTILE_PROGRAMS)
def test_refused_by_the_command_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = HOSTILE_PROGRAMS[name](tmp_path)
    np.savez(tmp_path / "x.npz", x=np.zeros((4, 3), np.float32))
    before = listing(tmp_path)
    capsys.readouterr()
    status = main(["inspect", str(path), "--data", str(tmp_path / "x.npz")])
    said = capsys.readouterr()
    assert status == 2, said.err
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    assert listing(tmp_path) == before


def test_there_are_enough_of_them():
    assert len(HOSTILE_SCRIPTS) >= 30
    assert len(HOSTILE_EXPORTS) >= 30


@pytest.mark.parametrize("name", HARMLESS_EXPORTS)
def test_what_is_dropped_never_runs(name: str, tmp_path: Path):
    path = HARMLESS_EXPORTS[name](tmp_path)
    before = listing(tmp_path)
    model = load_model(str(path), LoadSettings())
    assert model.module is not None
    assert model.module(torch.zeros(4, 3)).shape == (4, 3)
    assert listing(tmp_path) == before


def test_a_script_would_sing(tmp_path: Path):
    """With ``--trust-model`` the same file runs: the tests above can fail."""
    path = HOSTILE_PROGRAMS["script: __setstate__ writes a file"](tmp_path)
    with contextlib.suppress(GradscopeError):
        load_model(str(path), LoadSettings(trust_model=True))
    assert (tmp_path / CANARY).exists()


RUN = """
import contextlib, sys, torch
for path in sys.argv[1:]:
    with contextlib.suppress(Exception):
        torch.export.load(path).module()(torch.zeros(4, 3))
"""
SINGING = {
    name: (HOSTILE_EXPORTS | HARMLESS_EXPORTS)[name]
    for name in (
        "export: os.system as a size", "export: opaque constant", "export: pickled weight",
        "export: guards are code",
    )
}  # fmt: skip


def test_exported_programs_would_sing(tmp_path: Path):
    """torch itself runs these, in a process of its own: what other tests registered with torch
    changes what it runs."""
    folders = {name: tmp_path / str(i) for i, name in enumerate(SINGING)}
    for folder in folders.values():
        folder.mkdir()
    paths = [str(build(folders[name])) for name, build in SINGING.items()]
    subprocess.run([sys.executable, "-c", RUN, *paths], capture_output=True, check=False)
    assert [n for n, folder in folders.items() if not (folder / CANARY).exists()] == []
