"""The awkward ones: each works, with the numbers of naive autograd, or is named with a reason."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from gradscope.measurements import State
from gradscope.probe.cotangents import unit_cotangent
from gradscope.probe.layout import BatchLayout
from tests.support import measured

DRAWS = 4
near = lambda value: pytest.approx(value, rel=1e-6, abs=1e-12)  # noqa: E731
pytestmark = pytest.mark.filterwarnings("ignore")


class Net(nn.Module):
    """Three linear layers a, b, c and whatever else is given; ``f`` is its forward."""

    def __init__(self, f: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.f = f
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: torch.Tensor) -> Any:
        return self.f(self, x)


def plain(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.c(torch.tanh(net.b(torch.tanh(net.a(x)))))


def built(f: Callable[..., Any], **layers: nn.Module) -> Net:
    torch.manual_seed(0)
    return Net(f, **layers).double()


def data(*shape: int) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(6, *shape, dtype=torch.float64)


# --- models that do unusual things: numbers of naive autograd, or a name ------------------------


class Square(torch.autograd.Function):
    """tanh with a gradient of its own, from what it saved."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return g * (1 - x.tanh() ** 2)


class Through(torch.autograd.Function):
    """The sign, with the gradient of the identity; nothing saved."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return g


def _no_grad(net: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        h = torch.tanh(net.a(x))
    return net.c(torch.tanh(net.b(h)))


def _inference(net: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        h = torch.tanh(net.a(x))
    return net.c(torch.tanh(net.b(h.clone())))


def _force(net: Any, x: torch.Tensor) -> torch.Tensor:
    x = x if x.requires_grad else x.requires_grad_()
    return torch.autograd.grad(plain(net, x).sum(), x, create_graph=True)[0]


def _repeated(net: Any, x: torch.Tensor) -> torch.Tensor:
    h = torch.tanh(net.a(x))
    for _ in range(5):
        h = torch.tanh(net.b(h))
    return net.c(h)


def _mixed(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.c(torch.tanh(net.b(torch.tanh(net.a(x)).float().double())))


def _packed(net: Any, x: torch.Tensor) -> torch.Tensor:
    lengths = torch.tensor([5, 4, 3, 3, 2, 1])[: len(x)]
    steps, _ = net.rnn(pack_padded_sequence(x, lengths, batch_first=True))
    return net.head(pad_packed_sequence(steps, batch_first=True)[0].mean(1))


def _embedded(**options: Any) -> Callable[[], nn.Module]:
    table = nn.EmbeddingBag if options.pop("bag", False) else nn.Embedding
    return lambda: built(_words, table=table(11, 6, **options))


def _words(net: Any, x: torch.Tensor) -> torch.Tensor:
    h = net.table(x)
    return net.c(torch.tanh(net.b(torch.tanh(h.mean(1) if h.dim() == 3 else h))))


def _complex(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.c(torch.tanh(net.z(x.to(torch.complex128)).abs()))


def _complex_tanh(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.c(torch.tanh(net.z(x.to(torch.complex128))).abs())


class Remembering(nn.Module):
    """Hidden state, a cache and a counter, kept between calls."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("last", torch.zeros(6))
        self.cache: dict[str, list[torch.Tensor]] = {"h": []}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.a(x) + self.last)
        for earlier in self.cache["h"]:
            h = h + earlier.sum()
        self.calls += 1
        self.last = h.mean(0)
        self.cache["h"].append(h)
        return self.b(torch.tanh(h))


def _encoder() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    return nn.TransformerEncoder(layer, 2).double().eval().requires_grad_(False)


class Masked(nn.Module):
    """An encoder that is told which steps are padding."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = _encoder(), nn.Linear(8, 3).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padding = torch.zeros(x.shape[:2], dtype=torch.bool)
        padding[:, -1] = True
        return self.head(self.encoder(x, src_key_padding_mask=padding)[:, 0])


def _wrapped(wrap: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torch.manual_seed(0)
        first, second = wrap(nn.Linear(5, 6)), wrap(nn.Linear(6, 6))
        return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), nn.Linear(6, 3)).double()

    return build


@dataclasses.dataclass(frozen=True)
class Case:
    """One awkward model.

    Attributes:
        build: the module, float64.
        x: the input.
        sites: ids and roles that must be found; None where names are not the point.
        skipped: what must be named -> part of the reason.
        without: parameters that no gradient reaches.
    """

    build: Callable[[], nn.Module]
    sites: dict[str, str] | None = None
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    without: tuple[str, ...] = ()
    x: Callable[[], torch.Tensor] = lambda: data(5)


BOTH = {"a/tanh": "hidden", "b/tanh": "hidden"}
LAST = {"b/tanh": "hidden"}
LINEARS = {"0/tanh": "hidden", "2/tanh": "hidden"}
FRONT = ("a.weight", "a.bias")
integers = lambda: torch.randint(0, 11, (6, 4), generator=torch.Generator().manual_seed(1))  # noqa: E731
few = {"total of output": "two"}

CASES = {
    "frozen weights": Case(lambda: built(plain).requires_grad_(False), BOTH),
    "state between calls": Case(lambda: Remembering().double()),
    "no_grad inside": Case(lambda: built(_no_grad), LAST, {"activation 0 (tanh)": "without"},
                           FRONT),
    "inference_mode inside": Case(lambda: built(_inference), LAST,
                                  {"activation 0 (tanh)": "without"}, FRONT),
    "detached in the middle": Case(
        lambda: built(lambda m, x: m.c(torch.tanh(m.b(torch.tanh(m.a(x)).detach())))), LAST,
        {"activation 0 (tanh)": "without"}, FRONT),
    "custom function": Case(
        lambda: built(lambda m, x: m.c(torch.tanh(m.b(Square.apply(m.a(x)))))), LAST,
        {"activation 0 (tanh)": "custom function Square"}),
    "straight through": Case(
        lambda: built(lambda m, x: m.c(torch.tanh(m.b(Through.apply(m.a(x)))))), LAST, few),
    "gradient inside": Case(lambda: built(_force), BOTH, {}, ("c.bias",)),
    "recursion": Case(lambda: built(_repeated), BOTH),
    "shared weights": Case(
        lambda: built(lambda m, x: m.c(torch.tanh(F.linear(torch.tanh(m.a(x)), m.b.weight.t()))
                                       + torch.tanh(m.b(torch.tanh(m.a(x)))))), None),
    "mixed types": Case(lambda: built(_mixed), BOTH),
    "sparse embedding": Case(_embedded(sparse=True), None, {}, FRONT, integers),
    "sparse bag": Case(_embedded(sparse=True, bag=True), None, {}, FRONT, integers),
    "bag": Case(_embedded(bag=True), None, {}, FRONT, integers),
    "one-hot integers": Case(
        lambda: built(lambda m, x: plain(m, F.one_hot(x[:, 0] % 5, 5).double())), BOTH, {}, (),
        integers),
    "packed sequences": Case(
        lambda: built(_packed, rnn=nn.LSTM(4, 5, batch_first=True), head=nn.Linear(5, 3)), None,
        {"per-sample statistics": "packed"},
        tuple(f"{n}.{p}" for n in "abc" for p in ("weight", "bias")), lambda: data(5, 4)),
    "complex weights": Case(
        lambda: built(_complex, z=nn.Linear(5, 6, dtype=torch.complex128)), None, few,
        ("a.weight", "a.bias", "b.weight", "b.bias")),
    "complex activation": Case(
        lambda: built(_complex_tanh, z=nn.Linear(5, 6, dtype=torch.complex128)), {},
        {"activation 0 (tanh)": "complex"}, ("a.weight", "a.bias", "b.weight", "b.bias")),
    "no activation": Case(lambda: built(lambda m, x: m.c(m.b(m.a(x)))), {}, few),
    "zero elements": Case(
        lambda: built(lambda m, x: m.c(torch.cat([torch.tanh(m.b(torch.tanh(m.a(x)))),
                                                  torch.tanh(x[:, :0])], 1))), None),
    "fused encoder": Case(_encoder, {f"layers.{i}.linear1/relu": "hidden" for i in (0, 1)},
                          x=lambda: data(4, 8)),
    "padding mask": Case(Masked, {f"encoder.layers.{i}.linear1/relu": "hidden" for i in (0, 1)},
                         x=lambda: data(4, 8)),
    "weight norm, old": Case(_wrapped(nn.utils.weight_norm), LINEARS),
    "weight norm": Case(_wrapped(nn.utils.parametrizations.weight_norm), LINEARS),
    "spectral norm, old": Case(_wrapped(nn.utils.spectral_norm), LINEARS),
    "spectral norm": Case(_wrapped(nn.utils.parametrizations.spectral_norm), LINEARS),
    "orthogonal": Case(_wrapped(nn.utils.parametrizations.orthogonal), LINEARS),
    "swiglu": Case(lambda: built(lambda m, x: m.c(F.silu(m.a(x)) * m.u(x)), u=nn.Linear(5, 6)),
                   {"a/silu": "hidden"}, few, ("b.weight", "b.bias")),
    "tanhshrink": Case(lambda: built(lambda m, x: m.c(F.tanhshrink(m.b(torch.tanh(m.a(x)))))),
                       {"a/tanh": "hidden", "b/tanh": "part"}),
    "in-place kinds": Case(
        lambda: built(lambda m, x: m.c(F.elu_(m.b(F.hardtanh(m.a(x), inplace=True))))),
        {"a/hardtanh": "hidden", "b/elu": "hidden"}),
    "in-place relu6": Case(
        lambda: built(lambda m, x: m.c(F.silu(m.b(F.relu6(m.a(x), inplace=True)), inplace=True))),
        {"a/relu6": "hidden", "b/silu": "hidden"}),
    "output is an input too": Case(lambda: built(lambda m, x: (plain(m, x), m.a.weight)), BOTH,
                                   {"output[1]": "detached"}),
}  # fmt: skip


def naive(module: nn.Module, x: torch.Tensor, *, coupled: bool) -> dict[str, torch.Tensor]:
    """Gradients of the cotangents' sum: parameter -> gradient, scaled to one sample."""
    module = module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    y = module(x.clone().requires_grad_() if x.is_floating_point() else x)
    y = y[0] if isinstance(y, tuple) else y
    samples = 1 if coupled else len(x)
    layout = BatchLayout(0, inner=len(x)) if coupled else BatchLayout(0)
    total = torch.zeros(())
    for draw in range(DRAWS):
        v = unit_cotangent(
            tuple(y.shape), layout, seed=0, head=0, draw=draw, start=0, samples=samples
        )
        total = total + (y * v).sum()
    total.backward()
    scale = 1 / math.sqrt(samples * DRAWS)
    return {
        k: p.grad.to_dense() * scale for k, p in module.named_parameters() if p.grad is not None
    }


def _seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build()


@pytest.mark.parametrize("name", CASES)
def test_awkward_models_work(name):
    case = CASES[name]
    twin, module, x = _seeded(case.build), _seeded(case.build), case.x()
    expected = naive(twin, x, coupled=name == "packed sequences")
    found = measured(module, x)
    if case.sites is not None:
        assert {s.id: s.role for s in found.sites} == case.sites
    skipped = {s.what: s.reason for s in found.skipped}
    for what, reason in case.skipped.items():
        assert reason in skipped[what]
    no_path = {p.name for p in found.parameters if p.gradient.state is State.NO_PATH}
    assert no_path == set(case.without)
    for parameter in found.parameters:
        if parameter.name not in no_path:
            wanted = float(expected[parameter.name].norm())
            assert parameter.gradient.norm == pytest.approx(wanted, rel=1e-6, abs=1e-12)


def test_state_is_named_and_every_call_starts_from_the_file():
    torch.manual_seed(0)
    module = Remembering().double()
    x = data(5)
    once, parts = measured(module, x), measured(module, x, batch_size=3)
    assert "last" in once.model.notes[-1]
    assert "cache" in once.model.notes[-1]
    assert int(module.calls) == 0
    assert module.cache == {"h": []}
    for one, two in zip(once.sites, parts.sites, strict=True):
        assert two.output_gain == near(one.output_gain)


# --- scalar outputs, single samples --------------------------------------------------------------


def test_a_model_that_returns_its_loss():
    """One number: signs of random cotangents would cancel in the parameters' gradients."""
    module, x = built(lambda m, x: plain(m, x).square().mean()), data(5)
    found = measured(module, x)
    module(x).backward()
    for parameter in found.parameters:
        wanted = float(module.get_parameter(parameter.name).grad.norm())
        assert parameter.gradient.norm == near(wanted)
    assert found.run.draws == 1


def test_one_sample_with_one_output():
    module, x = built(lambda m, x: plain(m, x)[:, :1]), data(5)[:1]
    found = measured(module, x)
    module(x).sum().backward()
    for parameter in found.parameters:
        wanted = float(module.get_parameter(parameter.name).grad.norm())
        assert parameter.gradient.norm == near(wanted)


def test_one_sample_and_batch_norm_that_never_saw_data():
    net = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
    found = measured(net, data(5)[:1])
    assert found.run.batch_statistics == ()
    assert "never seen data" in {s.what: s.reason for s in found.skipped}["normalisation by 1"]


def test_batches_of_coupled_samples_add_up():
    """Twice the same batch: the gradient of a batch, not its double."""
    net = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
    once = measured(net, data(5), draws=64)
    twice = measured(net, torch.cat([data(5), data(5)]), batch_size=6, draws=64)
    whole = lambda m: math.hypot(*(p.gradient.norm for p in m.parameters))  # noqa: E731
    assert whole(twice) == pytest.approx(whole(once), rel=0.2)  # of random cotangents


def test_nan_weights_do_not_pass_for_coupled_samples():
    module = built(plain)
    module.b.weight.data[0, 0] = math.nan
    found = measured(module, data(5))
    assert "per-sample statistics" not in {s.what for s in found.skipped}
    assert {p.gradient.state for p in found.parameters} == {State.NONFINITE, State.VALUE}


def test_a_gradient_that_is_too_small_for_its_type():
    """300 layers: 0 in float32, a number in float64."""
    torch.manual_seed(0)
    layers = [m for _ in range(300) for m in (nn.Linear(5, 5), nn.Tanh())]
    net = nn.Sequential(*layers, nn.Linear(5, 3))
    found = measured(net, data(5).float())
    reason = {s.what: s.reason for s in found.skipped}["total of output"]
    assert "too small" in reason
    assert found.heads[0].ledger.total is None
    assert found.sites[0].gradient_state is State.ZERO
    exact = measured(net.double(), data(5))
    assert exact.heads[0].ledger.total < -60


def test_hooks_that_step_an_optimiser_do_not_run():
    module = built(plain)
    before = copy.deepcopy(module.state_dict())
    hooks = []
    for parameter in module.parameters():

        def step(p: torch.Tensor) -> None:
            with torch.no_grad():
                p.sub_(p.grad)

        hooks.append(parameter.register_post_accumulate_grad_hook(step))
    measured(module, data(5))
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    module(data(5)).sum().backward()  # and are there again
    assert not torch.equal(module.a.weight, before["a.weight"])
