"""``gradscope.inspect`` in a program: what it takes and returns, and that it leaves no trace."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gradscope
from gradscope.errors import GradscopeError

SAMPLES = Path(__file__).parent.parent / "sample_models"


class Net(nn.Module):
    """Has dropout, a batch norm, a frozen weight and a hook of its own."""

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        self.a, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)
        self.drop, self.b = nn.Dropout(), nn.Linear(6, 3)
        self.a.bias.requires_grad_(False)
        self.calls, self.fails_at = itertools.count(1), fails_at

    def forward(self, x):
        if next(self.calls) == self.fails_at:
            raise ValueError("no more")
        return self.b(self.drop(torch.tanh(self.norm(self.a(x)))))


@pytest.fixture(scope="module")
def digits():
    with np.load(SAMPLES / "digits.npz") as file:
        return file["x"][:96].astype(np.float32), file["y"][:96]


@pytest.fixture(scope="module")
def healthy():
    return torch.load(SAMPLES / "healthy_tanh.pt", weights_only=False)


def small_data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(24, 4, generator=generator), torch.arange(24) % 3


def test_importing_waits_for_nothing():
    code = "import sys, gradscope; dir(gradscope)\n"
    code += "assert not {'torch', 'numpy', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_has_what_it_names():
    assert {"inspect", "Report", "__version__"} <= set(dir(gradscope))
    with pytest.raises(AttributeError, match="inspct"):
        getattr(gradscope, "inspct")  # noqa: B009


FORMS = {
    "arrays": lambda x, y: (x, y),
    "tensors": lambda x, y: (torch.tensor(x), torch.tensor(y)),
    "by name": lambda x, y: {"x": x, "y": y},
    "labels by another name": lambda x, y: {"input": torch.tensor(x), "labels": y},
    "loader": lambda x, y: DataLoader(TensorDataset(torch.tensor(x), torch.tensor(y)), 32),
    "dataset": lambda x, y: TensorDataset(torch.tensor(x), torch.tensor(y)),
    "list of batches": lambda x, y: [(torch.tensor(x[:40]), y[:40]), (x[40:], y[40:])],
    "iterator": lambda x, y: iter([(x[:40], y[:40]), (x[40:], y[40:])]),
    "callable": lambda x, y: lambda: [{"x": torch.tensor(x), "y": torch.tensor(y)}],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_sample_in_any_form(form, digits, healthy, tmp_path):
    np.savez(tmp_path / "d.npz", x=digits[0], y=digits[1])
    expected = gradscope.inspect(SAMPLES / "healthy_tanh.pt", tmp_path / "d.npz")
    found = gradscope.inspect(healthy, FORMS[form](*digits))
    assert found.measurements.sample.samples == 96
    assert found.skill.value == pytest.approx(expected.skill.value, rel=1e-5)
    assert found.ledger.total == pytest.approx(expected.ledger.total, rel=1e-5)
    assert found.verdict == expected.verdict == "healthy"


def test_several_inputs_by_place_and_by_name():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 5), nn.Linear(2, 5)
            self.c = nn.Linear(5, 3)

        def forward(self, left, right):
            return self.c(torch.tanh(self.a(left) + self.b(right)))

    x, y = small_data()
    more = x[:, :2].clone()
    by_place = gradscope.inspect(Two(), (x, more, y))
    assert by_place.measurements.sample.labels
    assert list(by_place.measurements.sample.inputs) == ["left", "right"]
    assert not gradscope.inspect(Two(), (x, more)).measurements.sample.labels
    assert gradscope.inspect(Two(), {"right": more, "left": x, "y": y}).skill is not None


def test_without_labels_and_without_data():
    assert gradscope.inspect(Net(), small_data()[0]).skill is None
    made_up = gradscope.inspect(Net())
    assert made_up.measurements.sample.synthetic
    assert made_up.verdict == "undetermined"


def test_an_array_for_a_model_in_a_file(digits):
    """Arrays are compared element by element: what is given is not told by comparing."""
    found = gradscope.inspect(SAMPLES / "healthy_tanh.pt", digits[0])
    assert found.measurements.sample.samples == 96
    assert found.inspection.settings.in_memory


def test_held_out_data():
    x, y = small_data()
    found = gradscope.inspect(Net(), (x, y), val=DataLoader(TensorDataset(x[:9], y[:9]), 3))
    assert found.skill.held_out
    assert found.skill.samples == 9
    with pytest.raises(GradscopeError, match=r"the held-out data: .*without labels"):
        gradscope.inspect(Net(), (x, y), val=x)


def _state(net: Net, loader: DataLoader) -> dict[str, object]:
    """Everything that an examination might touch."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "tensors": {k: v.clone() for k, v in net.state_dict().items()},
        "identity": [id(t) for t in (*net.parameters(), *net.buffers())],
        "gradients": [None if p.grad is None else (id(p.grad), p.grad.clone())
                      for p in net.parameters()],
        "required": [p.requires_grad for p in net.parameters()],
        "modes": [m.training for m in net.modules()],
        "hooks": [list(getattr(m, h)) for m in net.modules() for h in hooks],
        "steps": [list(p._post_accumulate_grad_hooks or ()) for p in net.parameters()],
        "attributes": [sorted(vars(m)) for m in net.modules()],
        "torch": torch.get_rng_state(), "python": random.getstate(),
        "numpy": np.random.get_state()[1].copy(), "loader": loader.generator.get_state(),
        "flags": (torch.is_grad_enabled(), torch.backends.mkldnn.enabled,
                  torch.is_autocast_enabled("cpu"), torch.get_default_dtype()),
    }  # fmt: skip


def assert_same(before: object, after: object, place: str = "") -> None:
    """Compares nested states by value."""
    if isinstance(before, dict):
        assert before.keys() == after.keys(), place
        for key in before:
            assert_same(before[key], after[key], f"{place}.{key}")
    elif isinstance(before, list | tuple):
        assert len(before) == len(after), place
        for i, (one, other) in enumerate(zip(before, after, strict=True)):
            assert_same(one, other, f"{place}[{i}]")
    elif isinstance(before, torch.Tensor | np.ndarray):
        assert (before == after).all(), place
    else:
        assert before == after, place


@pytest.mark.parametrize("fails_at", [None, 2, 4])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_no_trace_is_left(fails_at, mode):
    torch.manual_seed(3)
    net, (x, y) = Net(fails_at).train(), small_data()
    net.drop.eval()
    seen = []
    net.b.register_forward_hook(lambda *given: seen.append(1))
    stepped = []
    net.b.weight.register_post_accumulate_grad_hook(lambda p: stepped.append(p))
    net.b.weight.grad, net.a.weight.grad = torch.ones(3, 6), torch.full((6, 4), 2.0)
    draws = torch.Generator().manual_seed(5)
    loader = DataLoader(TensorDataset(x, y), 8, shuffle=True, generator=draws)
    before, inputs = _state(net, loader), x.clone()
    if fails_at is None:
        gradscope.inspect(net, loader, val=(x, y), mode=mode)
    else:
        with pytest.raises(GradscopeError, match="no more"):
            gradscope.inspect(net, loader, mode=mode)
    assert_same(before, _state(net, loader))
    assert torch.equal(x, inputs)
    assert not stepped


class Scaled(nn.Module):
    """Takes a number beside its tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x, scale):
        assert isinstance(scale, int)
        return self.b(torch.tanh(self.a(x * scale)))


def test_a_number_for_forward_is_lent_to_a_model_in_memory():
    model, (x, _) = Scaled(), small_data()
    before = dict(vars(model))
    report = gradscope.inspect(model, x, input_values={"scale": 2})
    assert any("scale = 2" in note for note in report.to_dict()["model"]["notes"])
    assert vars(model).keys() == before.keys()
    with pytest.raises(GradscopeError, match="takes no 'sclae'"):
        gradscope.inspect(model, x, input_values={"sclae": 2})
    assert vars(model).keys() == before.keys()


def test_without_gradients_nothing_runs_backward():
    report = gradscope.inspect(Net(), small_data(), gradients=False)
    assert report.ledger is None
    assert report.measurements.hidden_saturation is not None
    with pytest.raises(GradscopeError, match="needs gradients"):
        gradscope.inspect(Net(), small_data(), gradients=False, trial=5)


def test_a_trial_trains_copies_only(digits, healthy):
    before = copy.deepcopy(healthy.state_dict())
    state = torch.get_rng_state()
    gradscope.inspect(healthy, digits, trial=3)
    assert_same(dict(before), dict(healthy.state_dict()))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("surroundings", [
    torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)
])  # fmt: skip
def test_it_measures_the_same_wherever_it_is_called(surroundings):
    torch.manual_seed(0)
    net, data = Net(), small_data()
    expected = gradscope.inspect(net, data)
    with surroundings():
        found = gradscope.inspect(net, data)
    assert found.to_json() == expected.to_json()


def test_same_seed_same_bytes_of_a_shuffled_loader():
    x, y = small_data()
    torch.manual_seed(0)
    net = Net()
    loader = DataLoader(TensorDataset(x, y), 8, shuffle=True, generator=torch.Generator())
    first, again = (gradscope.inspect(net, loader, samples=16).to_json() for _ in range(2))
    assert first == again
    assert "figures will vary" not in first


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch.compile's own
@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["parallel", "compiled"])
def test_wrappers_are_looked_through_and_left(wrap):
    net, data = Net(), small_data()
    expected = gradscope.inspect(net, data)
    wrapped = wrap(net)
    found = gradscope.inspect(wrapped, data)
    assert [p.name for p in found.measurements.parameters] == [
        p.name for p in expected.measurements.parameters
    ]
    assert found.ledger == expected.ledger
    assert next(wrapped.children()) is net


REFUSED = {
    "no model": (lambda: 3, "int: is a int, no model"),
    "script": (lambda: torch.jit.trace(nn.Linear(4, 3), torch.zeros(1, 4)), "torch.jit.save"),
    "program": (
        lambda: torch.export.export(nn.Linear(4, 3), (torch.zeros(2, 4),)).module(),
        "torch.export.save",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_has_to_come_from_a_file(case):
    make, message = REFUSED[case]
    with pytest.raises(GradscopeError, match=message):
        gradscope.inspect(make(), small_data())


BAD = {
    "shape": ({"sample": torch.zeros(5, 3)}, "the sample: the model does not run on it"),
    "lengths": ({"sample": (torch.zeros(5, 4), torch.zeros(4))}, "different numbers of samples"),
    "texts": ({"sample": np.array([["a", "b"]])}, "'x' has type <U1"),
    "nothing": ({"sample": 5}, "the sample: gives a int"),
    "samples": ({"samples": 0}, "samples: must be a whole number from 1, not 0"),
    "flag": ({"draws": True}, "draws: must be a whole number from 1, not True"),
    "half": ({"seed": 0.5}, "seed: must be a whole number from 0, not 0.5"),
    "mode": ({"mode": "test"}, "mode: must be 'eval' or 'train', not 'test'"),
    "device": ({"device": "cuda"}, "device: the model is on cpu, not on cuda"),
    "limit": ({"limits": {"GS101.totl": -1}}, "GS101 has no 'totl'|totl"),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals_are_one_line(case):
    options, message = BAD[case]
    with pytest.raises(GradscopeError, match=message) as caught:
        gradscope.inspect(Net(), **{"sample": small_data(), **options})
    assert "\n" not in str(caught.value)


def test_whole_numbers_of_numpy_are_whole_numbers():
    numbers = {"samples": 4, "batch_size": 2, "draws": 1, "seed": 3}
    own = gradscope.inspect(Net(), small_data(), **numbers)
    other = gradscope.inspect(Net(), small_data(), **{k: np.int64(v) for k, v in numbers.items()})
    assert type(other.inspection.settings.data.seed) is int
    assert other.to_dict()["run"] == own.to_dict()["run"]


def test_limits_are_used(digits):
    deep = torch.load(SAMPLES / "deep_tanh.pt", weights_only=False)
    assert "GS204" in {f.code for f in gradscope.inspect(deep, digits).findings}
    found = gradscope.inspect(deep, digits, limits={"GS204.ratio": 1e-30})
    assert "GS204" not in {f.code for f in found.findings}


def test_what_a_report_offers(digits):
    found = gradscope.inspect(SAMPLES / "deep_tanh.pt", digits)
    assert found.verdict == "unhealthy"
    assert found.errors[0].code == "GS101"
    assert found.causes[0] == "depth-gain"
    assert json.loads(found.to_json()) == found.to_dict()
    assert found.to_dict()["schema"] == "gradscope.report/1"
    assert str(found) == found.to_text()
    assert found.to_html().lower().startswith("<!doctype html>")
    assert "UNHEALTHY" in str(found)
    assert repr(found) == f"<gradscope.Report: unhealthy, {len(found.findings)} findings>"
    assert pickle.loads(pickle.dumps(found)) == found


def test_no_command_is_printed_that_cannot_be_typed():
    """A module in memory has no file that a command could name."""
    found = gradscope.inspect(Net(), small_data())
    assert "gradscope inspect" not in str(found)
    assert "gradscope inspect" not in found.to_json()
