"""Hostile and broken model files: refused in one line, nothing run, nothing written."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from gradscope.config import LoadSettings
from gradscope.errors import GradscopeError, LoadError, UntrustedError
from gradscope.loading import load_model
from tests.hostile import CANARY, HOSTILE


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_and_nothing_happens(name: str, tmp_path: Path):
    path = HOSTILE[name](tmp_path)
    before = listing(tmp_path)
    safe_globals = set(torch.serialization.get_safe_globals())
    with pytest.raises(LoadError) as error:
        load_model(str(path), LoadSettings())
    message = str(error.value)
    assert "\n" not in message
    assert error.value.exit_status == 2
    assert listing(tmp_path) == before
    assert not (tmp_path / CANARY).exists()
    assert set(torch.serialization.get_safe_globals()) == safe_globals


def test_there_are_enough_of_them():
    assert len(HOSTILE) >= 60


def test_the_canary_would_sing(tmp_path: Path):
    """With ``--trust-model`` the same file runs: the test above can fail."""
    path = HOSTILE["os.system"](tmp_path)
    with pytest.raises(LoadError):
        load_model(str(path), LoadSettings(trust_model=True))
    assert (tmp_path / CANARY).exists()


@pytest.mark.parametrize(
    ("name", "command"),
    [("os.system", "--trust-model"), ("forward replaced", "--trust-model")],
)
def test_refusals_print_the_command_that_would_admit_it(name, command, tmp_path):
    path = HOSTILE[name](tmp_path)
    with pytest.raises(UntrustedError, match=f"gradscope inspect .*{command}"):
        load_model(str(path), LoadSettings())


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), legacy=st.booleans())
def test_flipped_bits_load_or_are_refused(tmp_path: Path, data, legacy):
    torch.manual_seed(0)
    good = tmp_path / f"good{legacy}.pt"
    if not good.exists():
        net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.LSTM(3, 2))
        torch.save(net, good, _use_new_zipfile_serialization=not legacy)
    content = bytearray(good.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(content), 6000) - 1))
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    bad = tmp_path / "bad.pt"
    bad.write_bytes(bytes(content))
    with contextlib.suppress(GradscopeError):  # anything else is a bug
        load_model(str(bad), LoadSettings())
