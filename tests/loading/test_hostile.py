"""Hostile and broken model files: refused in one line, nothing run, nothing written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from gradscope.config import DataSettings, LoadSettings
from gradscope.errors import DataError, GradscopeError, LoadError, UntrustedError
from gradscope.loading import load_model, load_sample, pytorch
from gradscope.model import LoadedModel
from tests.hostile import CANARY, HARMLESS, HOSTILE, OBJECTS
from tests.hostile_archives import ARCHIVES
from tests.hostile_modules import MODULES
from tests.hostile_streams import STREAMS
from tests.hostile_weights import SAMPLES, WEIGHTS


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_and_nothing_happens(name: str, tmp_path: Path, monkeypatch):
    path = HOSTILE[name](tmp_path)
    monkeypatch.chdir(tmp_path)
    before = listing(tmp_path)
    safe_globals = torch.serialization.get_safe_globals()
    with pytest.raises(LoadError) as error:
        load_model(str(path), LoadSettings())
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 1200
    assert error.value.exit_status == 2
    assert listing(tmp_path) == before
    assert not (tmp_path / CANARY).exists()
    assert torch.serialization.get_safe_globals() == safe_globals


@pytest.mark.parametrize("name", HARMLESS)
def test_opened_and_nothing_happens(name: str, tmp_path: Path, monkeypatch):
    path = HARMLESS[name](tmp_path)
    monkeypatch.chdir(tmp_path)
    before = listing(tmp_path)
    model = load_model(str(path), LoadSettings())
    assert [tuple(t.shape) for t in model.state.values()] == [(3,)]
    assert listing(tmp_path) == before
    assert not (tmp_path / CANARY).exists()


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_refused_and_nothing_happens(name: str, tmp_path: Path, monkeypatch):
    path = SAMPLES[name](tmp_path)
    monkeypatch.chdir(tmp_path)
    before = listing(tmp_path)
    model = LoadedModel("m", "PyTorch module", nn.Linear(5, 2))
    with pytest.raises(DataError) as error:
        list(load_sample(model, DataSettings(data=str(path))).batches())
    assert "\n" not in str(error.value)
    assert listing(tmp_path) == before
    assert not (tmp_path / CANARY).exists()


def test_there_are_enough_of_them():
    tables = (OBJECTS, STREAMS, MODULES, ARCHIVES, WEIGHTS)
    assert len(HOSTILE) == sum(map(len, tables)) >= 200


@pytest.mark.parametrize("how", ["replaced", "written to", "removed"])
def test_a_file_that_changes_after_the_scan(how: str, tmp_path: Path, monkeypatch):
    """The pickle that was scanned is the one that is loaded, and the change is told."""
    path = HARMLESS["a second pickle"](tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    attack = HOSTILE["os.system beside weights"](other)
    scanned = pytorch._scanned

    def scanned_and_changed(*args, **kwargs):
        result = scanned(*args, **kwargs)
        if how == "replaced":
            os.replace(attack, path)
        elif how == "removed":
            path.unlink()
        else:
            path.write_bytes(attack.read_bytes())
        return result

    monkeypatch.setattr(pytorch, "_scanned", scanned_and_changed)
    with pytest.raises(LoadError, match=r"replaced or written to|broken"):
        load_model(str(path), LoadSettings())
    assert not list(tmp_path.rglob(CANARY))


def test_the_canary_would_sing(tmp_path: Path):
    """With ``--trust-model`` the same file runs: the test above can fail."""
    path = HOSTILE["os.system"](tmp_path)
    with pytest.raises(LoadError):
        load_model(str(path), LoadSettings(trust_model=True))
    assert (tmp_path / CANARY).exists()


@pytest.mark.parametrize(
    ("name", "option"),
    [("os.system", "--trust-model"), ("forward replaced", "--trust-model")],
)
def test_refusals_print_the_option_that_would_admit_it(name, option, tmp_path):
    path = HOSTILE[name](tmp_path)
    with pytest.raises(UntrustedError, match=f"add {option}"):
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
