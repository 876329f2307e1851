"""Scales folded into the parameters around an activation: exactly, or not at all and said so."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradscope.config import ProbeSettings, Settings
from gradscope.repair.alpha import Alpha
from gradscope.repair.base import Case, RemedyError, Result, perform
from gradscope.repair.compare import trainee_of
from gradscope.repair.minibatches import Minibatches
from tests.support import measured, sample_of

WIDTH, CLASSES = 6, 3


class Net(nn.Module):
    """``phi`` is tanh, or alpha tanh(z / alpha) for the activations that are named wide."""

    def __init__(self):
        super().__init__()
        self.wide: frozenset[int] = frozenset()
        self.alpha, self.at = 1.0, 0
        for name in ("a", "b", "c", "d", "out"):
            setattr(self, name, nn.Linear(WIDTH, CLASSES if name == "out" else WIDTH))

    def phi(self, z, function=torch.tanh):
        self.at += 1
        if self.at - 1 not in self.wide:
            return function(z)
        return self.alpha * function(z / self.alpha)

    def forward(self, x):
        self.at = 0
        return self.run(x)


class Chain(Net):
    def run(self, x):
        return self.out(self.phi(self.c(self.phi(self.b(self.phi(self.a(x)))))))


class ThroughRelu(Net):
    """A scale passes what is positively homogeneous."""

    def run(self, x):
        return self.out(F.leaky_relu(self.b(F.relu(F.dropout(self.phi(self.a(x)), 0.5, False)))))


class Residual(Net):
    """The branches of a sum share one scale, and what leaves it divides it."""

    def run(self, x):
        x = self.a(x)
        x = x + self.phi(self.b(x))
        x = x + self.phi(self.c(x))
        return self.out(x)


class Branch(Net):
    """The last linear layer of a branch takes the scale."""

    def run(self, x):
        return self.out(F.relu(x) + self.d(self.phi(self.c(x))) + self.b(self.phi(self.a(x))))


class InputInTheSum(Net):
    """The input cannot be scaled, and nothing stands between the activation and the sum."""

    def run(self, x):
        return self.out(x + self.phi(self.a(self.phi(self.b(x)))))


class LayerNorm(Net):
    """Gamma and beta take 1/alpha before, the next layer alpha behind."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)

    def run(self, x):
        return self.out(self.phi(self.norm(self.a(x))))


class IntoLayerNorm(LayerNorm):
    """The numbers that enter a norm decide how much its eps is."""

    def run(self, x):
        return self.out(self.norm(self.phi(self.a(self.phi(self.b(x))))))


class BareNorm(Net):
    def run(self, x):
        return self.out(self.phi(F.layer_norm(self.a(x), [WIDTH])))


class RmsNorm(Net):
    """By hand: what is behind its product can be scaled, what is before cannot."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(WIDTH))

    def run(self, x):
        x = self.a(x)
        x = self.gain * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)
        return self.out(self.phi(x))


class BatchNorm(Net):
    """Statistics take the scale of what enters, gamma and beta that of what leaves."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.BatchNorm1d(WIDTH), nn.BatchNorm1d(WIDTH)
        for norm in (self.one, self.two):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.1, 2)

    def run(self, x):
        x = self.phi(self.one(self.a(x)))
        return self.out(self.phi(self.b(self.two(x))))


class Shared(Net):
    """One layer used twice has one scale, which both uses must want."""

    def run(self, x):
        return self.out(self.phi(self.b(self.phi(self.b(self.phi(self.a(x)))))))


class SharedWithTheOutput(Net):
    """The layer behind the last activation stands before the first as well: another one helps."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(WIDTH, WIDTH)

    def run(self, x):
        return self.out(self.phi(self.c(self.phi(self.out(self.a(x))))))


class SharedBias(Net):
    """With a layer whose scale is free."""

    def __init__(self):
        super().__init__()
        self.b.bias = self.a.bias

    def run(self, x):
        return self.out(F.relu(self.b(self.phi(self.a(x)))))


class Tied(Net):
    """The table is a last layer as well."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(WIDTH, WIDTH)

    def run(self, x):
        x = self.a(x @ self.table.weight)
        return F.linear(self.phi(self.b(self.phi(x))), self.table.weight)


class TiedAtOdds(Tied):
    """Before a norm it cannot be scaled."""

    def run(self, x):
        x = F.layer_norm(x @ self.table.weight, [WIDTH])
        return F.linear(self.phi(self.b(x)), self.table.weight)


class Beside(Net):
    """Put side by side, with a pooled one among them."""

    def run(self, x):
        one, two = self.phi(self.a(x)), self.phi(self.b(x))
        pooled = F.avg_pool1d(one[:, None], 2)[:, 0]
        return self.out(self.d(torch.cat([pooled, two[:, :3]], dim=1)))


class Product(Net):
    """A gate is no hidden unit; what it multiplies keeps its scale."""

    def run(self, x):
        return self.out(torch.sigmoid(self.a(x)) * self.phi(self.b(x)))


class Attention(Net):
    """Queries and keys enter a softmax, values pass it."""

    def run(self, x):
        x = self.phi(self.a(x)).reshape(-1, 3, 2)
        scores = torch.softmax(x @ x.transpose(1, 2), dim=-1)
        return self.out((scores @ x).flatten(1))


class Values(Net):
    def run(self, x):
        q, k = self.c(x).reshape(-1, 3, 2), self.d(x).reshape(-1, 3, 2)
        v = self.phi(self.a(x)).reshape(-1, 3, 2)
        return self.out(F.scaled_dot_product_attention(q, k, v).flatten(1))


class Convolutions(Net):
    """With padding, pooling and dropout, in one, two and three dimensions."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv1d(1, 2, 3, padding=1)
        self.two = nn.Conv2d(2, 3, (1, 3), padding=(0, 1))
        self.back = nn.ConvTranspose1d(3, 2, 2)
        self.out = nn.Linear(8, CLASSES)

    def run(self, x):
        x = F.max_pool1d(self.phi(self.one(x[:, None])), 2)
        x = F.dropout(self.phi(self.two(x[:, :, None]))[:, :, 0], 0.3, False)
        return self.out(F.adaptive_avg_pool1d(self.phi(self.back(x)), 4).flatten(1))


class NotHomogeneous(Net):
    def run(self, x):
        return self.out(F.softplus(self.phi(self.a(x))) + self.d(self.phi(self.b(x))))


class InPlace(Net):
    def run(self, x):
        x = self.a(x)
        x = torch.tanh_(x) if 0 not in self.wide else self.phi(x)
        y = self.b(x)
        y += self.d(x)
        return self.out(y.relu_())


EVERY = {
    Chain: "fff", ThroughRelu: "f", Residual: "ff", Branch: "ff", InputInTheSum: "fl",
    LayerNorm: "f", IntoLayerNorm: "fl", BareNorm: "l", RmsNorm: "f", BatchNorm: "ff",
    Shared: "fff", SharedWithTheOutput: "lf", SharedBias: "f", Tied: "ff", TiedAtOdds: "l",
    Beside: "ff", Product: "f", Attention: "l", Values: "f", Convolutions: "fff",
    NotHomogeneous: "lf", InPlace: "f",
}  # fmt: skip
"""What becomes of each activation in the order in which they run: folded or left."""


def case_of(module: nn.Module, x: torch.Tensor) -> Case:
    y = torch.arange(len(x)) % CLASSES
    found = measured(module, x, y)
    trainee = trainee_of(
        module, list(module.parameters()), found, Settings("m", probe=ProbeSettings()),
        torch.device("cpu"),
    )  # fmt: skip
    sample = sample_of(x, y, 32)
    data = Minibatches(sample, sample, size=8, seed=0, exact=False)
    own, buffers = dict(module.named_parameters()), dict(module.named_buffers())
    return Case(found, (), trainee, own, data, buffers=buffers)


def made(kind: type[nn.Module], seed: int = 0) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(seed)
    module = kind().double().eval()
    return module, 2 * torch.randn(40, WIDTH, dtype=torch.float64)


def changed_by(module: nn.Module, result: Result) -> nn.Module:
    other = copy.deepcopy(module)
    own = dict((*other.named_parameters(), *other.named_buffers()))
    with torch.no_grad():
        for name, value in result.changed.items():
            own[name].copy_(value)
    return other


def drift(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def states(result: Result, case: Case) -> list[str]:
    """f or l for each call of an activation."""
    calls = {s.id: s.calls for s in case.measured.sites}
    return sorted("".join(p.state[0] * calls[p.where] for p in result.places))


@pytest.mark.parametrize("alpha", [2.0, 0.3])
@pytest.mark.parametrize("kind", EVERY)
def test_what_is_folded_is_exact_and_what_is_left_has_a_reason(kind: type[Net], alpha: float):
    module, x = made(kind)
    expected = EVERY[kind]
    case = case_of(module, x)
    if "f" not in expected:
        with pytest.raises(RemedyError, match=r"no weight can take its scale: ."):
            perform(Alpha(alpha), case)
        return
    result = perform(Alpha(alpha), case)
    assert states(result, case) == sorted(expected)
    folded = changed_by(module, result)
    module.alpha = alpha
    module.wide = frozenset(i for i, state in enumerate(expected) if state == "f")
    with torch.no_grad():
        assert drift(folded(x), module(x)) < 1e-12
        module.wide = frozenset()
        assert drift(folded(x), module(x)) > 1e-3
    for place in result.places:
        assert place.how
        if place.state == "left":
            assert place.how.startswith("no weight can take its scale: ")


def test_where_a_scale_goes_is_said():
    module, x = made(Chain)
    assert perform(Alpha(2.0), case_of(module, x)).said == (
        "alpha 2 for 3 activations",
        "a/tanh folded: 1/2 into a.bias, a.weight; 2 into b.weight",
        "b/tanh folded: 1/2 into b.bias, b.weight; 2 into c.weight",
        "c/tanh folded: 1/2 into c.bias, c.weight; 2 into out.weight",
    )


def test_inner_weights_of_a_chain_are_not_even_touched():
    module, x = made(Chain)
    changed = perform(Alpha(3.0), case_of(module, x)).changed
    assert changed.keys() == {"a.weight", "a.bias", "b.bias", "c.bias", "out.weight"}


@pytest.mark.parametrize(
    ("frozen", "said"),
    [("out.weight", "out.weight is to stay as it is"), ("b.bias", "b.bias is to stay as it is")],
)
def test_a_frozen_parameter_takes_nothing_and_is_named(frozen: str, said: str):
    module, x = made(Chain)
    case = case_of(module, x)
    del case.tensors[frozen]
    result = perform(Alpha(2.0), case)
    assert frozen not in result.changed
    (left,) = [i for i, p in enumerate(result.places) if p.state == "left"]
    assert said in result.places[left].how
    folded = changed_by(module, result)
    module.alpha, module.wide = 2.0, frozenset({0, 1, 2} - {left})
    with torch.no_grad():
        assert drift(folded(x), module(x)) < 1e-12
