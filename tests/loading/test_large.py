"""Large files are mapped into memory, and their tensors become the parameters themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from gradscope.config import LoadSettings
from gradscope.loading import fitting, load_model, pytorch

ARCHITECTURE = """
import torch
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight
    def forward(self, x):
        return self.two(self.one(x).tanh())

def plain():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))

def half():
    return plain().half()

tied = Tied
"""


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytorch, "MAPPED", 0)
    monkeypatch.setattr(fitting, "ASSIGNED", 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "arch.py").write_text(ARCHITECTURE)
    return tmp_path


def _plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def _loaded(folder: Path, arch: str | None = None) -> nn.Module:
    settings = LoadSettings(arch=f"{folder / 'arch.py'}:{arch}" if arch else None)
    module = load_model(str(folder / "m.pt"), settings).module
    assert module is not None
    return module


@pytest.mark.parametrize("arch", [None, "plain"])
def test_the_numbers_are_those_of_the_file_which_stays_as_it_is(
    folder: Path, arch: str | None
) -> None:
    model = _plain()
    torch.save(model.state_dict() if arch else model, folder / "m.pt")
    before = (folder / "m.pt").read_bytes()
    found = _loaded(folder, arch)
    for mine, theirs in zip(found.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert mine.requires_grad
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(1.0)
    assert (folder / "m.pt").read_bytes() == before


def test_tied_parameters_stay_tied(folder: Path) -> None:
    tied = {"one.weight": torch.randn(4, 4), "one.bias": torch.randn(4), "two.bias": torch.randn(4)}
    torch.save({**tied, "two.weight": tied["one.weight"]}, folder / "m.pt")
    found = _loaded(folder, "tied")
    assert found.one.weight is found.two.weight


def test_the_architecture_keeps_its_type(folder: Path) -> None:
    torch.save(_plain().state_dict(), folder / "m.pt")
    assert {p.dtype for p in _loaded(folder, "half").parameters()} == {torch.float16}
