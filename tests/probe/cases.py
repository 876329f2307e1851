"""Small models in float64, each as a module and again as a plain function that names its
activations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from tests.reference import Model, Tape


@dataclass(frozen=True)
class Case:
    """One model.

    Attributes:
        name: of the case.
        module: builds the module that the probe sees.
        twin: builds the plain function from the module.
        x: builds the input.
        chain: sites from first to last, where the model is a chain; else empty.
    """

    name: str
    module: Callable[[], nn.Module]
    twin: Callable[[nn.Module], Model]
    x: Callable[[], torch.Tensor]
    chain: tuple[str, ...] = ()


def _x(*shape: int, scale: float = 1.5) -> Callable[[], torch.Tensor]:
    return lambda: scale * torch.randn(7, *shape, dtype=torch.float64)


FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "tanh": torch.tanh, "sigmoid": torch.sigmoid, "softsign": F.softsign, "atan": torch.atan,
    "erf": torch.erf, "hardtanh": F.hardtanh, "hardsigmoid": F.hardsigmoid, "relu": torch.relu,
    "relu6": F.relu6, "leaky_relu": F.leaky_relu, "elu": F.elu, "selu": F.selu, "celu": F.celu,
    "gelu": F.gelu, "silu": F.silu, "mish": F.mish, "hardswish": F.hardswish,
    "softplus": F.softplus, "logsigmoid": F.logsigmoid,
}  # fmt: skip


class Chain(nn.Module):
    """Linear and a function, three times; functional calls only."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layers = nn.ModuleList([nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 5)])
        self.out = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = FUNCTIONS[self.kind](layer(x))
        return self.out(x)


def _chain_twin(m: nn.Module) -> Model:
    def run(x: torch.Tensor, tape: Tape) -> torch.Tensor:
        for i, layer in enumerate(m.layers):
            x = tape.act(f"layers.{i}/{m.kind}", m.kind, FUNCTIONS[m.kind], layer(x))
        return m.out(x)

    return run


def _chain(kind: str) -> Case:
    sites = tuple(f"layers.{i}/{kind}" for i in range(3))
    return Case(f"chain-{kind}", lambda: Chain(kind), _chain_twin, _x(6), sites)


def _sequential() -> nn.Module:
    act = nn.Tanh()  # one module, shared: its path is no identity
    return nn.Sequential(nn.Linear(6, 5), act, nn.Linear(5, 5), act, nn.Linear(5, 3))


def _sequential_twin(m: nn.Module) -> Model:
    def run(x: torch.Tensor, tape: Tape) -> torch.Tensor:
        x = tape.act("0/tanh", "tanh", torch.tanh, m[0](x))
        x = tape.act("2/tanh", "tanh", torch.tanh, m[2](x))
        return m[4](x)

    return run


def _conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 3, padding=1),
        nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 4), nn.Tanh(), nn.Linear(4, 3),
    )  # fmt: skip


def _conv_twin(m: nn.Module) -> Model:
    def run(x: torch.Tensor, tape: Tape) -> torch.Tensor:
        x = m[2](tape.act("0/tanh", "tanh", torch.tanh, m[0](x)))
        x = m[5](tape.act("3/tanh", "tanh", torch.tanh, m[3](x)))
        x = tape.act("7/tanh", "tanh", torch.tanh, m[7](m[6](x)))
        return m[9](x)

    return run


class Normed(nn.Module):
    """Batch norm (trained, eval) and layer norm before activations."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn = nn.Linear(6, 5), nn.BatchNorm1d(5)
        self.b, self.ln = nn.Linear(5, 5), nn.LayerNorm(5)
        self.c = nn.Linear(5, 3)
        self.bn.running_mean.normal_()
        self.bn.num_batches_tracked += 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.tanh(self.ln(self.b(torch.sigmoid(self.bn(self.a(x)))))))


def _normed_twin(m: nn.Module) -> Model:
    def run(x: torch.Tensor, tape: Tape) -> torch.Tensor:
        x = tape.act("bn/sigmoid", "sigmoid", torch.sigmoid, m.bn(m.a(x)))
        return m.c(tape.act("ln/tanh", "tanh", torch.tanh, m.ln(m.b(x))))

    return run


class Residual(nn.Module):
    """x + W2 tanh(W1 x), twice, between two activations on the spine."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 5), nn.Linear(5, 3)
        self.up = nn.ModuleList(nn.Linear(5, 5) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(5, 5) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).tanh()
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(up(x).tanh())
        return self.head(x)


def _residual_twin(m: nn.Module) -> Model:
    def run(x: torch.Tensor, tape: Tape) -> torch.Tensor:
        x = tape.act("stem/tanh", "tanh", torch.tanh, m.stem(x))
        for i in range(2):
            x = x + m.down[i](tape.act(f"up.{i}/tanh", "tanh", torch.tanh, m.up[i](x)))
        return m.head(x)

    return run


class Tied(nn.Module):
    """One layer applied twice: one site, two calls; tied with the output's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(5, 5)
        self.out = nn.Linear(5, 5)
        self.out.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.a(torch.tanh(self.a(x)))))


def _tied_twin(m: nn.Module) -> Model:
    def run(x: torch.Tensor, tape: Tape) -> torch.Tensor:
        for _ in range(2):
            x = tape.act("a/tanh", "tanh", torch.tanh, m.a(x))
        return m.out(x)

    return run


class Words(nn.Module):
    """Integers, looked up and averaged; the output is a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 5)
        self.a, self.b, self.c = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.sigmoid(self.b(torch.tanh(self.a(self.table(x).mean(1)))))
        return torch.softmax(self.c(h), dim=-1)


def _words_twin(m: nn.Module) -> Model:
    def run(x: torch.Tensor, tape: Tape) -> torch.Tensor:
        h = tape.act("a/tanh", "tanh", torch.tanh, m.a(m.table(x).mean(1)))
        return m.c(tape.act("b/sigmoid", "sigmoid", torch.sigmoid, m.b(h)))

    return run


class Recurrent(nn.Module):
    """An RNN of torch's, read out at the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.RNN(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def _recurrent_twin(m: nn.Module) -> Model:
    def run(x: torch.Tensor, tape: Tape) -> torch.Tensor:
        h = torch.zeros(len(x), 5, dtype=x.dtype)
        for t in range(x.shape[1]):
            z = F.linear(x[:, t], m.rnn.weight_ih_l0, m.rnn.bias_ih_l0)
            z = z + F.linear(h, m.rnn.weight_hh_l0, m.rnn.bias_hh_l0)
            h = tape.act("rnn.l0/tanh", "tanh", torch.tanh, z)
        return m.head(h)

    return run


class Gated(nn.Module):
    """An LSTM of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def _gated_twin(m: nn.Module) -> Model:
    def run(x: torch.Tensor, tape: Tape) -> torch.Tensor:
        h = c = torch.zeros(len(x), 5, dtype=x.dtype)
        for t in range(x.shape[1]):
            z = F.linear(x[:, t], m.lstm.weight_ih_l0, m.lstm.bias_ih_l0)
            i, f, g, o = (z + F.linear(h, m.lstm.weight_hh_l0, m.lstm.bias_hh_l0)).chunk(4, 1)
            i = tape.act("lstm.l0/input", "sigmoid", torch.sigmoid, i)
            f = tape.act("lstm.l0/forget", "sigmoid", torch.sigmoid, f)
            g = tape.act("lstm.l0/cell", "tanh", torch.tanh, g)
            o = tape.act("lstm.l0/output", "sigmoid", torch.sigmoid, o)
            c = f * c + i * g
            h = o * tape.act("lstm.l0/state", "tanh", torch.tanh, c)
        return m.head(h)

    return run


class GatedTwice(nn.Module):
    """A GRU of torch's, both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(x)[0].mean(1))


def _gru_twin(m: nn.Module) -> Model:
    def run(x: torch.Tensor, tape: Tape) -> torch.Tensor:
        h = torch.zeros(len(x), 5, dtype=x.dtype)
        seen = []
        for t in range(x.shape[1]):
            ir, iz, i_n = F.linear(x[:, t], m.gru.weight_ih_l0, m.gru.bias_ih_l0).chunk(3, 1)
            hr, hz, hn = F.linear(h, m.gru.weight_hh_l0, m.gru.bias_hh_l0).chunk(3, 1)
            r = tape.act("gru.l0/reset", "sigmoid", torch.sigmoid, ir + hr)
            z = tape.act("gru.l0/update", "sigmoid", torch.sigmoid, iz + hz)
            n = tape.act("gru.l0/new", "tanh", torch.tanh, i_n + r * hn)
            h = (1 - z) * n + z * h
            seen.append(h)
        return m.head(torch.stack(seen, 1).mean(1))

    return run


class Branches(nn.Module):
    """Two branches of the same depth, joined."""

    def __init__(self, *, swapped: bool = False) -> None:
        super().__init__()
        self.swapped = swapped
        self.left = nn.ModuleList([nn.Linear(6, 5), nn.Linear(5, 5)])
        self.right = nn.ModuleList([nn.Linear(6, 5), nn.Linear(5, 5)])
        self.head = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = [self.right, self.left] if self.swapped else [self.left, self.right]
        ends = []
        for branch in branches:
            h = x
            for layer in branch:
                h = torch.tanh(layer(h))
            ends.append(h)
        left, right = ends[::-1] if self.swapped else ends
        return self.head(torch.cat([left, right], 1))


def _branches_twin(m: nn.Module) -> Model:
    def run(x: torch.Tensor, tape: Tape) -> torch.Tensor:
        ends = []
        for name, branch in (("left", m.left), ("right", m.right)):
            h = x
            for i, layer in enumerate(branch):
                h = tape.act(f"{name}.{i}/tanh", "tanh", torch.tanh, layer(h))
            ends.append(h)
        return m.head(torch.cat(ends, 1))

    return run


class Squeeze(nn.Module):
    """Squeeze and excitation: a sigmoid gate over channels; SiLU by hand; a sigmoid output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(4, 3), nn.Linear(3, 4)
        self.mix, self.head = nn.Linear(4, 5), nn.Linear(5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv(x).tanh()
        gate = torch.sigmoid(self.fc2(torch.tanh(self.fc1(h.mean((2, 3))))))
        h = (h * gate[:, :, None, None]).mean((2, 3))
        h = self.mix(h)
        return torch.sigmoid(self.head(h * torch.sigmoid(h)))


def _squeeze_twin(m: nn.Module) -> Model:
    def run(x: torch.Tensor, tape: Tape) -> torch.Tensor:
        h = tape.act("conv/tanh", "tanh", torch.tanh, m.conv(x))
        inner = tape.act("fc1/tanh", "tanh", torch.tanh, m.fc1(h.mean((2, 3))))
        gate = tape.act("fc2/sigmoid", "sigmoid", torch.sigmoid, m.fc2(inner))
        h = m.mix((h * gate[:, :, None, None]).mean((2, 3)))
        return m.head(h * tape.act("mix/sigmoid", "sigmoid", torch.sigmoid, h))

    return run


CASES = [
    *(_chain(kind) for kind in ("tanh", "sigmoid", "softsign", "atan", "erf", "hardtanh",
                                "hardsigmoid", "relu", "relu6", "leaky_relu", "elu", "selu",
                                "gelu", "silu", "mish", "hardswish", "softplus", "logsigmoid")),
    Case("shared-module", _sequential, _sequential_twin, _x(6), ("0/tanh", "2/tanh")),
    Case("conv", _conv, _conv_twin, _x(2, 8, 8), ("0/tanh", "3/tanh", "7/tanh")),
    Case("norms", Normed, _normed_twin, _x(6), ("bn/sigmoid", "ln/tanh")),
    Case("residual", Residual, _residual_twin, _x(6)),
    Case("tied", Tied, _tied_twin, _x(5)),
    Case("embedding", Words, _words_twin, lambda: torch.randint(0, 11, (7, 4)),
         ("a/tanh", "b/sigmoid")),
    Case("rnn", Recurrent, _recurrent_twin, _x(6, 4)),
    Case("lstm", Gated, _gated_twin, _x(6, 4)),
    Case("gru", GatedTwice, _gru_twin, _x(6, 4)),
    Case("branches", Branches, _branches_twin, _x(6)),
    Case("squeeze-excite", Squeeze, _squeeze_twin, _x(2, 6, 6)),
]  # fmt: skip
