"""TorchScript: the same numbers as the eager model, whatever form it was saved in."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.config import DataSettings, LoadSettings
from gradscope.errors import DataError, LoadError
from gradscope.loading import load_model, load_sample
from gradscope.model import Input, LoadedModel
from gradscope.probe.state import set_mode
from tests.hostile_scripts import HOSTILE_SCRIPTS, rewrite
from tests.loading.twins import TWINS, assert_same, eager, load, numbers

pytestmark = pytest.mark.filterwarnings("ignore")
Saver = Callable[[nn.Module, torch.Tensor], torch.jit.ScriptModule]
FORMS: dict[str, Saver] = {
    "scripted": lambda m, x: torch.jit.script(m),
    "traced": lambda m, x: torch.jit.trace(m, x[:4], check_trace=False),
}


def saved(module: torch.jit.ScriptModule, folder: Path) -> Path:
    path = folder / "model.pt"
    torch.jit.save(module, path)
    return path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TWINS)
def test_same_numbers_as_eager(name: str, form: str, tmp_path: Path):
    module, x = eager(name)
    loaded = load(saved(FORMS[form](module, x), tmp_path))
    wanted = numbers(LoadedModel("m", "module", module), x)
    assert wanted.sites
    assert_same(numbers(loaded, x), wanted)
    assert_same(numbers(loaded, x), wanted)  # optimisation would strike from the second call on


@pytest.mark.parametrize("name", ["mlp", "lstm", "gru", "residual"])
def test_frozen_scripts_have_the_same_numbers_under_other_names(name: str, tmp_path: Path):
    module, x = eager(name)
    loaded = load(saved(torch.jit.freeze(torch.jit.script(module)), tmp_path))
    found = numbers(loaded, x)
    assert_same(found, numbers(LoadedModel("m", "module", module), x), names=False)
    assert not any(p.trainable for p in found.parameters)
    assert "constants" in " ".join(loaded.notes)


def test_names_of_a_frozen_script_tell_what_takes_them(tmp_path: Path):
    loaded = load(saved(torch.jit.freeze(torch.jit.script(eager("mlp")[0])), tmp_path))
    names = [n for n, _ in loaded.module.named_parameters()]
    assert names[:4] == ["linear_0.weight", "linear_0.bias", "linear_1.weight", "linear_1.bias"]


class Options(nn.Module):
    """Optional and plain arguments; two outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 3)
        self.head = nn.Linear(3, 3)

    def forward(
        self, x: torch.Tensor, scale: torch.Tensor | None = None, loud: bool = False
    ) -> dict[str, torch.Tensor]:
        h = torch.tanh(self.body(x))
        if scale is not None:
            h = h * scale
        if loud:
            print("loud")  # noqa: T201
        return {"logits": self.head(h), "hidden": h}

    @torch.jit.export
    def other(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)


class Remembers(nn.Module):
    """A hidden state and a counter, carried from call to call."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 3)
        self.hidden = torch.zeros(1, 3)
        self.count = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.hidden = torch.tanh(self.body(x) + self.hidden)
        self.count += 1
        return torch.tanh(self.hidden * self.count)


def test_inputs_are_those_of_the_schema(tmp_path: Path):
    loaded = load(saved(torch.jit.script(Options()), tmp_path))
    assert loaded.inputs == (
        Input("x"),
        Input("scale", required=False),
        Input("loud", required=False, plain=True),
    )


def test_outputs_keep_their_names(tmp_path: Path):
    loaded = load(saved(torch.jit.script(Options().eval()), tmp_path))
    found = numbers(loaded, torch.randn(24, 3))
    assert [h.name for h in found.heads] == ["output.logits", "output.hidden"]


def test_what_a_script_prints_is_dropped(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    loaded = load(saved(torch.jit.script(Options().eval()), tmp_path))
    loaded.module(torch.randn(2, 3), loud=True)
    assert capfd.readouterr().out == ""


def test_state_between_calls_is_put_back(tmp_path: Path):
    loaded = load(saved(torch.jit.script(Remembers().eval()), tmp_path))
    assert "keeps count, hidden between calls" in " ".join(loaded.notes)
    x = torch.randn(24, 3)
    first = loaded.module(x)
    assert torch.equal(loaded.module(x), first)
    numbers(loaded, x)


def test_layers_keep_their_kind(tmp_path: Path):
    module, x = eager("cnn with batch norm")
    found = numbers(load(saved(torch.jit.script(module), tmp_path)), x)
    assert [layer.kind for layer in found.layers][:3] == ["Conv2d", "BatchNorm2d", "Conv2d"]


def test_batch_norm_that_never_saw_data_uses_batch_statistics(tmp_path: Path):
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Tanh()).eval()
    fresh, _ = set_mode(load(saved(torch.jit.script(net), tmp_path)).module, "eval")
    assert fresh == ["1"]


def test_train_mode_reaches_a_script_but_not_a_trace(tmp_path: Path):
    module, x = eager("cnn with batch norm")
    scripted = load(saved(torch.jit.script(module), tmp_path)).module
    assert set_mode(scripted, "train") == ([], [])
    assert not torch.equal(scripted(x), scripted(x))  # dropout
    traced = load(saved(torch.jit.trace(module, x[:4]), tmp_path))
    assert [s.what for s in set_mode(traced.module, "train")[1]] == ["train mode"]


def test_a_trace_in_train_mode_says_so(tmp_path: Path):
    module, x = eager("cnn with batch norm")
    traced = torch.jit.trace(module.train(), x[:4], check_trace=False)
    assert "runs in train mode" in " ".join(load(saved(traced, tmp_path)).notes)


def test_weights_without_gradient_are_measured(tmp_path: Path):
    module, x = eager("mlp")
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    found = numbers(load(saved(torch.jit.script(module), tmp_path)), x)
    assert all(p.gradient and p.gradient.rms for p in found.parameters)
    assert not any(p.trainable for p in found.parameters)


@pytest.mark.parametrize("form", FORMS)
def test_shared_weights_are_one_parameter(form: str, tmp_path: Path):
    module, x = eager("mlp")
    module[2].weight = module[0].weight
    found = numbers(load(saved(FORMS[form](module, x), tmp_path)), x)
    assert_same(found, numbers(LoadedModel("m", "module", module), x))
    assert ("0.weight", "2.weight") in [p.names for p in found.parameters]


def test_devices_in_the_code_become_the_cpu(tmp_path: Path):
    module, x = eager("lstm")
    path = saved(torch.jit.trace(module, x[:4]), tmp_path)

    def on_cuda(records: dict[str, bytes]) -> dict[str, bytes]:
        return {
            n: d.replace(b'torch.device("cpu")', b'torch.device("cuda:0")')
            for n, d in records.items()
        }

    loaded = load(rewrite(path, on_cuda))
    assert "cuda:0" in " ".join(loaded.notes)
    assert torch.allclose(loaded.module(x), module(x), atol=1e-6)


def test_what_does_not_fit_is_explained_in_one_line(tmp_path: Path):
    loaded = load(saved(torch.jit.script(eager("mlp")[0]), tmp_path))
    np.savez(tmp_path / "x.npz", x=np.zeros((8, 5), np.float32))
    with pytest.raises(DataError, match=r"a sample is \(5,\) float32.*mat1 and mat2") as error:
        load_sample(loaded, DataSettings(data=str(tmp_path / "x.npz")))
    assert "\n" not in str(error.value)


REFUSED = {
    "oneDNN": (
        lambda: torch.jit.optimize_for_inference(torch.jit.script(eager("cnn with batch norm")[0])),
        "optimised for inference with oneDNN.*no gradients",
    ),
    "no forward": (lambda: torch.jit.script(nn.ModuleList([nn.Linear(2, 2)])), "has no forward"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_examined_is_named(name: str, tmp_path: Path):
    make, message = REFUSED[name]
    path = tmp_path / "model.pt"
    make().save(str(path))
    with pytest.raises(LoadError, match=message):
        load(path)


def test_old_versions_open(tmp_path: Path):
    module, x = eager("mlp")
    path = saved(torch.jit.script(module), tmp_path)

    def aged(records: dict[str, bytes]) -> dict[str, bytes]:
        code = {n: b"op_version_set = 1\n" + d for n, d in records.items() if n.endswith(".py")}
        return {**records, **code, "version": b"3\n"}

    assert torch.allclose(load(rewrite(path, aged)).module(x), module(x), atol=1e-6)


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


class Unusual(nn.Module):
    """What TorchScript has beyond calls: enumerations, named tuples, tasks, contexts, lists."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"a-b": nn.Linear(6, 6), "c": nn.Linear(6, 6)})
        self.color = Color.RED

    def forward(self, x: torch.Tensor, times: int = 2):
        found = [x]
        for name, layer in self.layers.items():
            task = torch.jit.fork(layer, found[-1])
            found.append(torch.tanh(torch.jit.wait(task)) * len(name))
        with torch.no_grad():
            mean = x.mean()
        while times > 0:
            times -= 1
        assert x.dim() == 2, f"has {x.dim()} axes"
        if self.color == Color.RED:
            found.append(found[-1] - mean)
        return Pair(found[-1], torch.stack([torch.relu(f) for f in found]).sum(0))


def test_unusual_scripts_run(tmp_path: Path):
    torch.manual_seed(0)
    module, x = Unusual().eval(), torch.randn(24, 6)
    loaded = load(saved(torch.jit.script(module), tmp_path))
    assert torch.allclose(loaded.module(x)[1], module(x)[1], atol=1e-6)
    with pytest.raises(RuntimeError, match="has 1 axes"):
        loaded.module(x[0])


def test_mobile_files_are_named(tmp_path: Path):
    script = torch.jit.script(eager("mlp")[0])
    script._save_for_lite_interpreter(str(tmp_path / "model.ptl"))
    with pytest.raises(LoadError, match="mobile bytecode"):
        load(tmp_path / "model.ptl")


def test_trusted_files_are_opened_unseen(tmp_path: Path):
    path = saved(torch.jit.script(eager("mlp")[0]), tmp_path)
    loaded = load_model(str(path), LoadSettings(trust_model=True))
    assert loaded.format == "TorchScript"


def test_messages_of_torch_are_one_line(tmp_path: Path):
    with pytest.raises(LoadError, match="cannot be opened by PyTorch") as error:
        load(HOSTILE_SCRIPTS["script: no code"](tmp_path))
    assert "\n" not in str(error.value)


def test_a_mode_that_is_neither_true_nor_false_is_refused(tmp_path: Path):
    """It could be read, but not put back."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)
            self.__dict__["training"] = {"x": 1}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    Odd.__annotations__ = {"training": dict[str, int]}
    torch.jit.script(Odd()).save(str(tmp_path / "m.pt"))
    with pytest.raises(LoadError, match="mode of the model is neither true nor false"):
        load_model(str(tmp_path / "m.pt"), LoadSettings())
