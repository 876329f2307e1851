"""One model in many files: the command line says the same of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.cli.main import main
from tests.loading.twins import TWINS, eager

pytestmark = pytest.mark.filterwarnings("ignore")
Saver = Callable[[nn.Module, torch.Tensor, Path], None]


def _export(module: nn.Module, x: torch.Tensor, path: Path, *, free: bool) -> None:
    shapes = ({0: torch.export.Dim("n", max=4096)},) if free else None
    torch.export.save(torch.export.export(module, (x,), dynamic_shapes=shapes), path)


FORMS: dict[str, Saver] = {
    "scripted": lambda m, x, p: torch.jit.save(torch.jit.script(m), p),
    "traced": lambda m, x, p: torch.jit.save(torch.jit.trace(m, x, check_trace=False), p),
    "exported": lambda m, x, p: _export(m, x[:3], p, free=True),
    "exported for 4": lambda m, x, p: _export(m, x[:4], p, free=False),
    "exported for 1": lambda m, x, p: _export(m, x[:1], p, free=False),
}


class _Report:
    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> None:
        capsys.readouterr()
        status = main(["inspect", str(path), "--format", "json", *options])
        said = capsys.readouterr()
        assert status == 0, said.err
        self.value: dict[str, Any] = json.loads(said.out)


def _plain(name: str, folder: Path) -> tuple[nn.Module, torch.Tensor, Path]:
    """An eager model that opens by itself, and its data: 24 samples in three classes."""
    module, x = eager(name)
    np.savez(folder / "data.npz", x=x.numpy(), y=np.arange(24) % 3)
    return module, x, folder / "data.npz"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["mlp", "lstm"])
def test_same_report(name: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    module, x, data = _plain(name, tmp_path)
    torch.save(module.state_dict(), tmp_path / "state.pt")
    FORMS[form](module, x, tmp_path / "model")
    arch = ["--arch", f"tests.loading.twins:{TWINS[name].make.__name__}"]
    wanted = _Report(tmp_path / "state.pt", capsys, "--data", str(data), *arch).value
    found = _Report(tmp_path / "model", capsys, "--data", str(data)).value
    assert found["verdict"] == wanted["verdict"]
    assert found["sample"]["samples"] == wanted["sample"]["samples"] == 24
    assert found["model"]["parameters"] == wanted["model"]["parameters"]
    assert found["ledger"]["total"] == pytest.approx(wanted["ledger"]["total"], abs=1e-5)
    assert [a["id"] for a in found["activations"]] == [a["id"] for a in wanted["activations"]]
    for mine, other in zip(found["parameters"], wanted["parameters"], strict=True):
        assert mine["gradient"]["rms"] == pytest.approx(other["gradient"]["rms"], rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_without_data(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    module, x = eager("cnn with batch norm")
    FORMS[form](module, x, tmp_path / "model")
    options = [] if form.startswith("exported") else ["--input-shape", "1x8x8"]
    found = _Report(tmp_path / "model", capsys, *options).value
    assert found["sample"]["synthetic"]
    assert found["ledger"]["total"] is not None


@pytest.mark.parametrize("option", ["--head", "--output"])
def test_an_output_is_chosen_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
):
    from tests.loading.test_export import Keywords

    x = torch.randn(24, 3)
    np.savez(tmp_path / "data.npz", x=x.numpy())
    _export(Keywords().eval(), x[:4], tmp_path / "model", free=True)
    options = ["--data", str(tmp_path / "data.npz"), option, "output.hidden"]
    found = _Report(tmp_path / "model", capsys, *options).value
    assert [o["name"] for o in found["outputs"]] == ["output.hidden"]
