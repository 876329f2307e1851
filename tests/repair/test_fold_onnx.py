"""Scales of ONNX models: folded where they can be, and products in the graph where they cannot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from gradscope.cli.main import main
from gradscope.config import LoadSettings
from gradscope.loading import load_model, save_like
from gradscope.model import Edit
from gradscope.repair.alpha import Alpha
from gradscope.repair.base import perform
from tests.repair.test_fold import (
    EVERY,
    Attention,
    BatchNorm,
    Chain,
    Convolutions,
    InputInTheSum,
    IntoLayerNorm,
    Net,
    Residual,
    case_of,
    made,
)

# The exporter warns that it is the older one, and of what it does by itself.
pytestmark = pytest.mark.filterwarnings("ignore")

ALPHA, LOAD = 2.0, LoadSettings()
PRODUCTS = {
    Chain: 0, Residual: 0, BatchNorm: 1, Convolutions: 0, InputInTheSum: 1, IntoLayerNorm: 1,
    Attention: 1,
}  # fmt: skip
"""Mul nodes that a model has more of afterwards. The statistics of a graph's batch norm are no
parameters, and take no scale."""


def exported(kind: type[Net], folder: Path) -> tuple[nn.Module, Path, Path]:
    module, _ = made(kind)
    module = module.float()
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(1))
    path, data = folder / "model.onnx", folder / "data.npz"
    torch.onnx.export(
        module, (x[:4],), path, dynamo=False, opset_version=18, input_names=["x"],
        output_names=["y"], dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
    )  # fmt: skip
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 3, 60))
    np.savez(data, x=x.numpy(), y=labels.numpy())
    return module, path, data


def count(path: Path) -> int:
    return sum(n.op_type == "Mul" for n in onnx.load(path).graph.node)


def outputs(path: Path, x: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path)
    return torch.from_numpy(session.run(["y"], {"x": x.numpy()})[0])


@pytest.mark.parametrize("kind", PRODUCTS)
def test_every_activation_has_its_scale(kind: type[Net], tmp_path):
    """In onnxruntime, and in the module that is trained."""

    module, path, data = exported(kind, tmp_path)
    loaded = load_model(str(path), LOAD)
    x = torch.from_numpy(np.load(data)["x"])
    case = case_of(loaded.module, x)
    case.explicit = loaded.explicit
    result = perform(Alpha(ALPHA), case)
    assert "left" not in {p.state for p in result.places}
    out = tmp_path / "fixed.onnx"
    save_like(str(path), out, result.changed, edit=Edit(products=result.products))
    onnx.checker.check_model(str(out), full_check=True)
    assert count(out) - count(path) == PRODUCTS[kind]
    module.alpha, module.wide = ALPHA, frozenset(range(len(EVERY[kind])))
    with torch.no_grad():
        wanted = module(x)
    assert torch.allclose(outputs(out, x), wanted, rtol=1e-4, atol=1e-5)
    with case.with_tensors(result.changed), case.with_products(result.products):
        ours = loaded.module(x)["y"]
    assert torch.allclose(ours, wanted, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert not torch.allclose(loaded.module(x)["y"], wanted, rtol=1e-2)


def test_a_product_is_trained_with_and_written(tmp_path, capsys):
    """End to end: the file that is written does what was scored."""
    _, path, data = exported(InputInTheSum, tmp_path)
    archive = dict(np.load(data))
    x = archive["x"]
    np.savez(data, x=x, y=(x[:, 0] > 0).astype(np.int64))
    out = tmp_path / "fixed.onnx"
    options = ["--out", str(out), "--alpha", "2", "--epochs", "30", "--val", str(data)]
    status = main(["fix", str(path), "--data", str(data), *options, "--format", "json"])
    told = json.loads(capsys.readouterr().out)
    assert status == 0, told["summary"]
    states = {p["where"]: p["state"] for p in told["stages"][1]["places"]}
    assert sorted(states.values()) == ["explicit", "folded"]
    assert count(out) == count(path) + 1
    scored = outputs(out, torch.from_numpy(x)).argmax(dim=1).numpy() == (x[:, 0] > 0)
    assert scored.mean() == pytest.approx(told["stages"][-1]["score"])
    readme = (tmp_path / "fixed.onnx.run" / "README.md").read_text()
    assert "1 folded exactly, 1 explicit in the file" in readme
