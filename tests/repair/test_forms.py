"""Each remedy in each form of file: what is written is what was repaired, read by plain torch or
onnxruntime, and only numbers differ."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from gradscope.config import LoadSettings, Settings
from gradscope.diagnosis import diagnose
from gradscope.loading import load_model, save_like
from gradscope.model import LoadedModel
from gradscope.probe import measure
from gradscope.progress import Silent
from gradscope.repair.base import Case, perform
from gradscope.repair.compare import put_back, trainee_of
from gradscope.repair.methods import remedy
from gradscope.repair.minibatches import Minibatches
from gradscope.rules import run_rules
from tests.support import sample_of

SAMPLES = Path(__file__).parent.parent.parent / "sample_models"
sys.path.insert(0, str(SAMPLES))
import build  # noqa: E402

DATA = build.digits()
X, Y = DATA.train[0][:160], DATA.train[1][:160]


class Recurrent(nn.Module):
    """Digits row by row."""

    def __init__(self, kind: str = "LSTM", two: bool = False):
        super().__init__()
        cell = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}[kind]
        self.rnn = cell(8, 12, batch_first=True, bidirectional=two)
        self.head = nn.Linear(24 if two else 12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x.reshape(-1, 8, 8))[0][:, -1])


class Attention(nn.Module):
    """Digits as eight tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(8, 16), nn.Linear(16, 10)
        self.attn = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.embed(x.reshape(-1, 8, 8))
        return self.head((y + self.attn(y, y, y, need_weights=False)[0]).mean(dim=1))


class Branches(nn.Module):
    """A chain beside a skip, its activation called as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(64, 16), nn.Linear(16, 16), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.tanh(self.one(x))
        return self.three(y + torch.tanh(self.two(y)))


def convolutions(dimensions: int, transposed: bool = False) -> nn.Module:
    kinds = {1: (nn.Conv1d, nn.ConvTranspose1d), 2: (nn.Conv2d, nn.ConvTranspose2d),
             3: (nn.Conv3d, nn.ConvTranspose3d)}  # fmt: skip
    conv = kinds[dimensions][0]
    shape = {1: (64,), 2: (8, 8), 3: (4, 4, 4)}[dimensions]
    second = kinds[dimensions][transposed]
    return nn.Sequential(
        nn.Unflatten(1, (1, *shape)), conv(1, 4, 3, padding=1), nn.Tanh(),
        second(4, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip


def normed() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(),
        nn.Linear(16, 10),
    )  # fmt: skip


def large(module: nn.Module, factor: float = 8.0) -> nn.Module:
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(factor)
    return module


def attending() -> nn.Module:
    module = Attention()
    with torch.no_grad():
        module.attn.in_proj_weight[:32].mul_(20)
    return module


def dead() -> nn.Module:
    module = build.mlp(2, 16, nn.ReLU)
    with torch.no_grad():
        module[2].bias.fill_(-50)
    return module


def biased() -> nn.Module:
    module = build.mlp(2, 16, nn.Tanh)
    with torch.no_grad():
        module[2].bias.uniform_(10, 30)
    return module


NETS = {
    "mlp": lambda: large(build.mlp(2, 16, nn.Tanh)),
    "conv1d": lambda: large(convolutions(1)),
    "conv2d": lambda: large(convolutions(2)),
    "conv3d": lambda: large(convolutions(3)),
    "transposed": lambda: large(convolutions(2, True)),
    "branches": lambda: large(Branches()),
    "normed": lambda: large(normed()),
    "lstm": lambda: large(Recurrent(), 20),
    "gru": lambda: large(Recurrent("GRU"), 20),
    "two-way": lambda: large(Recurrent("LSTM", True), 20),
    "rnn": lambda: Recurrent("RNN"),
    "attention": attending,
    "dead": dead,
    "biased": biased,
}


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETS[name]().eval()


FORMS = ("pt", "checkpoint", "safetensors", "ts", "pt2", "onnx")
CASES = [
    ("mlp", "kappa"), ("mlp", "kappa-refit"), ("mlp", "polar"), ("mlp", "alpha"),
    ("mlp", "std-restore"), ("mlp", "restart"), ("biased", "centre"), ("dead", "revive"),
    ("conv1d", "kappa"), ("conv2d", "kappa-refit"), ("conv3d", "kappa"), ("branches", "kappa"),
    ("normed", "batch-norm-fold"), ("lstm", "kappa-gates"), ("gru", "kappa-gates"),
    ("two-way", "kappa-gates"), ("lstm", "identity"), ("rnn", "identity"),
    ("attention", "temperature"),
]  # fmt: skip
NOT_IN = {
    ("batch-norm-fold", "onnx"): "no large weight stands directly before",  # exported folded
}
"""Remedy and form that do not go together, and what is said."""


def saved(name: str, form: str, folder: Path) -> tuple[Path, LoadSettings]:
    module, path = make(name), folder / f"model.{form}"
    settings = LoadSettings(allow=("tests.repair.test_forms",))
    by_code = LoadSettings(arch=f"{__file__}:make", arch_args={"name": name})
    if form == "pt":
        torch.save(module, path)
    elif form == "checkpoint":
        torch.save({"epoch": 3, "model": module.state_dict(), "optimizer": {"lr": 0.1}}, path)
        return path, by_code
    elif form == "safetensors":
        save_file(module.state_dict(), path, metadata={"made": "by hand"})
        return path, by_code
    elif form == "ts":
        torch.jit.script(module).save(path)
    elif form == "pt2":
        batch = torch.export.Dim("batch", min=2, max=4096)
        torch.export.save(torch.export.export(module, (X[:4],), dynamic_shapes=({0: batch},)), path)
    else:
        torch.onnx.export(
            module, (X[:4],), str(path), dynamo=False, input_names=["x"], output_names=["scores"],
            dynamic_axes={"x": {0: "n"}, "scores": {0: "n"}},
        )  # fmt: skip
    return path, settings


def case_of(model: LoadedModel) -> Case:
    module = model.module
    sample = sample_of(X, Y, 32)
    settings = Settings("model")
    found = measure(model, sample, None, settings.probe, 0, 32, Silent())
    causes = diagnose(found, run_rules(found)).causes
    for p in module.parameters():
        p.requires_grad_(True)
    trained = list(module.parameters())
    trainee = trainee_of(module, trained, found, settings, torch.device("cpu"))
    data = Minibatches(sample, sample, size=32, seed=0, exact=False)
    tensors, buffers = dict(module.named_parameters()), dict(module.named_buffers())
    return Case(found, causes, trainee, tensors, data, 0, buffers)


def plainly(path: Path, form: str, name: str) -> np.ndarray:
    if form == "onnx":
        onnx.checker.check_model(str(path), full_check=True)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run(["scores"], {"x": X.numpy()})[0]
    if form == "ts":
        module = torch.jit.load(path)
    elif form == "pt2":
        module = torch.export.load(path).module()
    elif form == "pt":
        module = torch.load(path, weights_only=False)
    else:
        module = make(name)
        state = load_file(path) if form == "safetensors" else torch.load(path)["model"]
        module.load_state_dict(state)
    with torch.no_grad():
        return module(X).numpy()


def outputs(model: LoadedModel) -> np.ndarray:
    with torch.no_grad():
        found = model.module(X)
    found = next(iter(found.values())) if isinstance(found, dict) else found
    return found.numpy()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("name", "method"), CASES)
def test_what_is_written_is_what_was_repaired(tmp_path, name, method, form):
    path, settings = saved(name, form, tmp_path)
    model = load_model(str(path), settings)
    case = case_of(model)
    refused = NOT_IN.get((method, form))
    if refused is not None:
        assert refused in remedy(method).requires(case)
        return
    result = perform(remedy(method), case)
    assert result.modified
    before = outputs(model)
    with put_back(model.module), torch.no_grad():
        for key, value in result.changed.items():
            case.own(key).copy_(value)
        expected = outputs(model)
    out = tmp_path / f"fixed.{form}"
    save_like(str(path), out, result.changed)
    found = plainly(out, form, name)
    assert np.abs(expected - before).max() > 1e-3
    assert found == pytest.approx(expected, abs=1e-4 * max(1.0, float(np.abs(expected).max())))
    _rest_is_kept(path, out, form)


def _rest_is_kept(path: Path, out: Path, form: str) -> None:
    if form == "checkpoint":
        old, new = torch.load(path), torch.load(out)
        assert (list(new), list(new["model"])) == (list(old), list(old["model"]))
        assert (new["epoch"], new["optimizer"]) == (3, {"lr": 0.1})
    elif form == "safetensors":
        with safe_open(out, framework="pt") as archive:
            assert archive.metadata() == {"made": "by hand"}
    elif form == "onnx":
        old, new = onnx.load(path), onnx.load(out)
        assert [(n.op_type, n.name, list(n.output)) for n in new.graph.node] == [
            (n.op_type, n.name, list(n.output)) for n in old.graph.node
        ]
        assert new.opset_import == old.opset_import
        assert new.producer_name == old.producer_name


def test_a_layer_that_is_left_is_named(tmp_path):
    """A transposed convolution feeds its activation by another layout of filters."""
    path, settings = saved("transposed", "pt", tmp_path)
    case = case_of(load_model(str(path), settings))
    result = perform(remedy("kappa"), case)
    assert "1.weight" in result.changed
    mentioned = "3.weight" in result.changed or any("3.weight" in s for s in result.said)
    assert mentioned
