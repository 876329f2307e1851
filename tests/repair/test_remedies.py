"""Remedies: what they promise, as laws, and what was measured of them, as bands."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gradscope.config import ProbeSettings, Settings
from gradscope.diagnosis import diagnose
from gradscope.model import Batch
from gradscope.probe.activations import ATAN, SIGMOID, SOFTSIGN, TANH
from gradscope.probe.state import untouched
from gradscope.repair.base import Case, Remedy, RemedyError, Result, perform
from gradscope.repair.capture import Capture
from gradscope.repair.compare import put_back, trainee_of
from gradscope.repair.kappa import Kappa, least_alpha
from gradscope.repair.minibatches import Minibatches
from gradscope.repair.polar import Polar, orthogonal_factor
from gradscope.repair.recipe import Penalty
from gradscope.repair.ridge import Moments, solve
from gradscope.repair.standardise import standardisation
from gradscope.repair.std_restore import StdRestore
from gradscope.rules import run_rules
from tests.support import measured, sample_of

SAMPLES = Path(__file__).parent.parent.parent / "sample_models"
sys.path.insert(0, str(SAMPLES))
import build  # noqa: E402

DATA = build.digits()
X, Y = DATA.train


def case_of(module: nn.Module, x: torch.Tensor = X, y: torch.Tensor = Y) -> Case:
    found = measured(module, x[:512], y[:512])
    causes = diagnose(found, run_rules(found)).causes
    settings = Settings("model", probe=ProbeSettings())
    trainee = trainee_of(module, list(module.parameters()), found, settings, torch.device("cpu"))
    data = Minibatches(sample_of(x, y, 128), sample_of(*DATA.val), size=32, seed=0, exact=False)
    return Case(found, causes, trainee, dict(module.named_parameters()), data)


def saturated(kind=nn.Tanh) -> nn.Module:
    torch.manual_seed(0)
    module = build.mlp(3, 32, kind)
    with torch.no_grad():
        for p in module.parameters():
            p.uniform_(-10, 10)
    return module


def after(module: nn.Module, remedy: Remedy):
    case = case_of(module)
    result = perform(remedy, case)
    with put_back(module), torch.no_grad():
        for name, value in result.changed.items():
            case.tensors[name].copy_(value)
        return measured(module, X[:512], Y[:512])


@pytest.mark.parametrize("kind", [nn.Tanh, nn.Sigmoid, nn.Softsign, nn.Hardtanh])
@pytest.mark.parametrize("refit", [False, True])
def test_kappa_brings_every_layer_into_its_working_range(kind, refit):
    module = saturated(kind)
    assert measured(module, X[:512]).hidden_saturation > 0.7
    found = after(module, Kappa(refit))
    for site in found.sites:
        assert site.mean_relative_derivative == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize(
    ("kind", "ratio"), [(TANH, 1.82), (ATAN, 1.66), (SOFTSIGN, 6.13), (SIGMOID, 0.91)]
)
def test_alpha_of_gaussian_pre_activations(kind, ratio):
    """alpha / sd z, measured once and for all on Gaussian z."""
    z = 20 * torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    assert least_alpha(z, kind) / 20 == pytest.approx(ratio, rel=0.02)


def test_what_works_is_not_shrunk():
    assert least_alpha(torch.linspace(-0.3, 0.3, 1000), TANH) == 1.0


def test_an_untrained_layer_before_a_norm_is_left_and_named():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(),
        nn.Linear(16, 10),
    )  # fmt: skip
    chain = case_of(module).chain
    assert [link.weight for link in chain.links] == ["3.weight", "5.weight"]
    assert dict(chain.outside) == {"0.weight": "feeds no activation itself, but a norm or a sum"}
    assert chain.last[0].weight == "5.weight"


def test_capture_sees_what_is_multiplied():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5)
    )
    x = torch.randn(6, 2, 8, 8)
    tensors = dict(module.named_parameters())
    with torch.no_grad(), Capture(tensors) as capture:
        module(x)
    for use in capture.uses:
        z = use.rows() @ tensors[use.weight].flatten(1).T + tensors[use.bias]
        assert torch.allclose(z, use.z, atol=1e-5)
    assert [use.weight for use in capture.uses] == ["0.weight", "3.weight"]


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(("dimensions", "kind"), [(1, nn.Conv1d), (2, nn.Conv2d), (3, nn.Conv3d)])
def test_capture_of_convolutions(dimensions, kind, dilation):
    torch.manual_seed(0)
    module = kind(2, 3, 3, padding=2, stride=2, dilation=dilation)
    tensors = dict(module.named_parameters())
    with torch.no_grad(), Capture(tensors) as capture:
        module(torch.randn(2, 2, *[9] * dimensions))
    (use,) = capture.uses
    z = use.rows() @ tensors["weight"].flatten(1).T + tensors["bias"]
    assert torch.allclose(z, use.z, atol=1e-5)


@given(rows=st.integers(1, 12), columns=st.integers(1, 12), seed=st.integers(0, 99))
def test_polar_factor_is_orthogonal(rows, columns, seed):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    factor = orthogonal_factor(weight).double()
    small = factor @ factor.T if rows <= columns else factor.T @ factor
    assert torch.allclose(
        small, max(1.0, rows / columns) * torch.eye(len(small)).double(), atol=1e-4
    )


def test_polar_of_an_attenuated_net_carries_the_gradient():
    module = torch.load(SAMPLES / "plateaued_tanh.pt", weights_only=False)
    assert measured(module, X[:512]).ledger.gain < -5
    assert after(module, Polar()).ledger.gain > -1


def test_std_restore_only_shrinks():
    module = saturated()
    case = case_of(module)
    result = perform(StdRestore(), case)
    for name, value in result.changed.items():
        assert value.abs().max() < case.tensors[name].abs().max()
    again = saturated()
    with torch.no_grad():
        for name, value in result.changed.items():
            dict(again.named_parameters())[name].copy_(value)
    assert not perform(StdRestore(), case_of(again)).changed or all(
        torch.allclose(v, dict(again.named_parameters())[n], rtol=1e-5)
        for n, v in perform(StdRestore(), case_of(again)).changed.items()
    )


@given(split=st.integers(1, 99), seed=st.integers(0, 20))
def test_moments_add_up(split, seed):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(100, 5, generator=random)
    z = torch.randn(100, 3, generator=random)
    whole = Moments.of(x, z)
    parts = Moments.of(x[:split], z[:split]).merge(Moments.of(x[split:], z[split:]))
    assert torch.allclose(whole.fit(1e-3), parts.fit(1e-3))
    solution = whole.fit(1e-3)
    wide = torch.cat([x.double(), torch.ones(100, 1).double()], dim=1)
    assert whole.error(solution) == pytest.approx(
        float((wide @ solution - z.double()).square().sum()), rel=1e-9
    )


def test_a_refit_depends_on_the_samples_and_not_on_their_batches():
    """A file that is one batch, or sorted by class, has two halves as good as any."""
    torch.manual_seed(0)
    module = build.each(build.mlp(3, 32, nn.Tanh), lambda p: p.normal_(0, 1))
    found = []
    for size in (64, 16):
        case = case_of(module)
        x, y = X[:64], Y[:64]
        case.data = Minibatches(sample_of(x, y, size), None, size=32, seed=0, exact=False)
        case.data.split = False
        found.append(perform(Kappa(refit=True), case).changed)
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert torch.allclose(value, found[1][name], rtol=1e-3, atol=1e-5), name


def test_ridge_finds_a_linear_map():
    random = torch.Generator().manual_seed(0)
    x, weight = torch.randn(400, 6, generator=random), torch.randn(3, 6, generator=random)
    z = x @ weight.T + 2.0
    found = solve(Moments.of(x[:200], z[:200]), Moments.of(x[200:], z[200:]))
    assert torch.allclose(found[0].float(), weight, atol=1e-3)
    assert torch.allclose(found[1].float(), torch.full((3,), 2.0), atol=1e-3)


@pytest.mark.parametrize("learned", [False, True])
def test_a_standardisation_is_inserted_and_folded_exactly(learned):
    torch.manual_seed(0)
    module = build.mlp(3, 32, nn.Tanh).double()
    x = X.double() * 1000 + 1000
    before = module(x)
    case = case_of(module, x)
    found = standardisation(case, learned)
    batch = next(sample_of(x, Y).batches())
    with case.with_tensors(found.unfolded(case.tensors)):
        assert torch.allclose(module(found(batch).args[0]), before, atol=1e-3)
        back = found.folded(case.tensors)
    with case.with_tensors(back):
        assert torch.allclose(module(x), before, atol=1e-3)


def test_an_input_by_name_is_standardised_too():
    torch.manual_seed(0)
    case = case_of(build.mlp(3, 32, nn.Tanh))
    by_name = Batch((), {"input": X[:8]}, Y[:8], 8, 0)
    case.data = SimpleNamespace(once=lambda: iter([by_name]))
    found = standardisation(case, learned=False)
    assert torch.allclose(found(by_name).kwargs["input"].mean(), torch.zeros(()), atol=1e-5)


class Careless(Remedy):
    name, summary = "careless", "writes to its input"

    def requires(self, case):
        return None

    def apply(self, case):
        with torch.no_grad():
            case.tensors["0.bias"].add_(1)
        return Result({})


class Broken(Careless):
    def apply(self, case):
        return Result({"0.bias": torch.full_like(case.tensors["0.bias"], float("nan"))})


class Idle(Careless):
    def apply(self, case):
        return Result({"0.bias": case.tensors["0.bias"].detach().clone()})


def test_a_remedy_is_held_to_its_promise():
    module = build.mlp(3, 32, nn.Tanh)
    with pytest.raises(RemedyError, match=r"changed '0\.bias' in place"):
        perform(Careless(), case_of(module))
    with pytest.raises(RemedyError, match=r"no usable '0\.bias'"):
        perform(Broken(), case_of(module))
    assert not perform(Idle(), case_of(module)).modified


def test_remedies_leave_the_model_alone():
    module = saturated()
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    with untouched(module):
        for remedy in (Kappa(), Kappa(refit=True), Polar(), StdRestore()):
            perform(remedy, case_of(module))
    assert all(torch.equal(before[n], p) for n, p in module.named_parameters())


@pytest.mark.parametrize("kind", ["l2", "l1", "max-norm", "spectral"])
def test_penalties(kind):
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)) * 5
    expected = {"l2": 0.5 * weight.square().sum(), "l1": 0.5 * weight.abs().sum()}
    penalty = Penalty(kind, 0.5)
    assert float(penalty.of([weight])) == pytest.approx(float(expected.get(kind, 0.0)), rel=1e-5)
    before = weight.clone()
    penalty.project([weight])
    if kind == "max-norm":
        assert torch.allclose(weight.norm(dim=1), torch.full((6,), 0.5))
    elif kind == "spectral":
        assert float(torch.linalg.matrix_norm(weight, 2)) == pytest.approx(0.5, rel=1e-4)
    else:
        assert torch.equal(weight, before)
