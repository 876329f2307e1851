"""What is a site, what is it for, and where does the spine run: read from the graph alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradscope.errors import ProbeError
from gradscope.measurements import Role, State
from tests.probe.cases import CASES, Branches
from tests.support import measured

torch.manual_seed(0)
BY_NAME = {c.name: c for c in CASES}


def small(name: str):
    torch.manual_seed(0)
    case = BY_NAME[name]
    return measured(case.module().double().eval(), case.x())


def test_modules_and_functions_give_the_same_sites():
    torch.manual_seed(0)
    layers = [nn.Linear(6, 6) for _ in range(3)]
    modules = nn.Sequential(*[m for layer in layers for m in (layer, nn.Tanh())], nn.Linear(6, 2))

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for i, layer in enumerate([*layers, modules[-1]]):
                setattr(self, str(2 * i), layer)

        def forward(self, x):
            for i in (0, 2, 4):
                x = getattr(self, str(i))(x).tanh_()
            return getattr(self, "6")(x)

    x = torch.randn(9, 6)
    one, two = measured(modules, x), measured(Functional(), x)
    assert one.sites == two.sites
    assert one.heads[0].ledger == two.heads[0].ledger
    assert one.parameters == two.parameters


def test_swapping_the_order_of_branches_changes_nothing():
    torch.manual_seed(0)
    one = Branches().double()
    two = Branches(swapped=True).double()
    two.load_state_dict(one.state_dict())
    x = torch.randn(9, 6, dtype=torch.float64)
    a, b = measured(one, x), measured(two, x)
    assert a.heads == b.heads
    assert a.parameters == b.parameters
    assert {s.id: s for s in a.sites} == {s.id: s for s in b.sites}


ROLES = {
    "squeeze-excite": {
        "conv/tanh": Role.HIDDEN, "fc1/tanh": Role.HIDDEN, "fc2/sigmoid": Role.GATE,
        "mix/sigmoid": Role.PART, "head/sigmoid": Role.OUTPUT,
    },
    "lstm": {f"lstm.l0/{g}": Role.GATE for g in ("input", "forget", "cell", "output", "state")},
    "gru": {f"gru.l0/{g}": Role.GATE for g in ("reset", "update", "new")},
    "rnn": {"rnn.l0/tanh": Role.HIDDEN},
}  # fmt: skip


@pytest.mark.parametrize("name", ROLES)
def test_roles(name):
    assert {s.id: s.role for s in small(name).sites} == ROLES[name]


class Wide(nn.Module):
    """Whatever ``f`` makes of two linear layers of the input."""

    def __init__(self, f, out: int = 6) -> None:
        super().__init__()
        self.a, self.b, self.f = nn.Linear(6, 6), nn.Linear(6, 6), f
        self.head = nn.Linear(out, 3)

    def forward(self, x):
        return self.head(self.f(self.a(x), self.b(x)))


MADE_BY_HAND = {
    "silu": (lambda a, b: a * torch.sigmoid(a) + b, {"a/sigmoid": Role.PART}),
    "gelu": (lambda a, b: 0.5 * a * (1 + torch.erf(a / 2**0.5)) + b, {"a/erf": Role.PART}),
    "gelu-tanh": (
        lambda a, b: 0.5 * a * (1 + torch.tanh(0.8 * (a + 0.04 * a**3))) + b,
        {"a/tanh": Role.PART},
    ),
    "glu": (lambda a, b: a * torch.sigmoid(b), {"b/sigmoid": Role.GATE}),
    "wavenet": (
        lambda a, b: torch.tanh(a) * torch.sigmoid(b),
        {"a/tanh": Role.HIDDEN, "b/sigmoid": Role.GATE},
    ),
    "scaled": (lambda a, b: 3 * torch.tanh(a) - 1 + b, {"a/tanh": Role.HIDDEN}),
}


@pytest.mark.parametrize("name", MADE_BY_HAND)
def test_roles_of_compositions(name):
    f, expected = MADE_BY_HAND[name]
    found = measured(Wide(f), torch.randn(9, 6))
    assert {s.id: s.role for s in found.sites} == expected


def test_glu_is_a_gate():
    found = measured(Wide(lambda a, b: F.glu(torch.cat([a, b], 1))), torch.randn(9, 6))
    assert [(s.kind, s.role) for s in found.sites] == [("glu", Role.GATE)]


OUTPUTS = {
    "softmax": lambda z: torch.softmax(z, -1),
    "log-softmax": lambda z: torch.log_softmax(z, -1),
    "sigmoid": torch.sigmoid,
    "tanh": lambda z: 2 * torch.tanh(z),
    "normalisation": lambda z: F.normalize(z, dim=-1),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_cotangents_enter_before_a_final_squashing(name):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))

    class Squashed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = plain

        def forward(self, x):
            return OUTPUTS[name](self.net(x))

    x = torch.randn(9, 6)
    head = measured(Squashed(), x).heads[0]
    assert head.entered_before == name
    assert head.ledger.total == measured(plain, x).heads[0].ledger.total


WEIGHTLESS = {
    "expected value": lambda p: (p * torch.arange(6.0, dtype=p.dtype)).sum(-1) / p.sum(-1),
    "largest": lambda p: p.amax(-1),
    "square": lambda p: (p * p).sum(-1),
}


@pytest.mark.parametrize("name", WEIGHTLESS)
@pytest.mark.parametrize("kind", [torch.sigmoid, torch.tanh])
def test_a_bounded_activation_that_no_weight_follows_is_an_output(name, kind):
    """A detector's scores: weighed, summed, picked from, but no longer learned from."""

    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x):
            return WEIGHTLESS[name](kind(self.b(torch.tanh(self.a(x)))))

    found = measured(Scores(), torch.randn(9, 6))
    assert [s.role for s in found.sites] == [Role.HIDDEN, Role.OUTPUT]


def test_outputs_of_any_shape_and_those_that_cannot_be_probed():
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            z = self.a(x)
            index, fixed = z.argmax(1), z.detach()
            pair = (self.b(z), index)
            return {"scores": z, "pair": pair, "fixed": fixed, "squashed": z.tanh()}

    found = measured(Many(), torch.randn(9, 6))
    assert [h.name for h in found.heads] == ["output.scores", "output.pair[0]"]
    skipped = {s.what: s.reason for s in found.skipped}
    assert "int64" in skipped["output.pair[1]"]
    assert "detached" in skipped["output.fixed"]
    assert "output.scores" in skipped["output.squashed"]  # a cotangent would enter there twice


def test_nothing_to_differentiate_is_status_3():
    class Constant(nn.Module):
        def forward(self, x):
            return x.argmax(1)

    with pytest.raises(ProbeError) as error:
        measured(Constant(), torch.randn(9, 6))
    assert error.value.exit_status == 3


def test_states_stay_apart():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)
            self.dead = nn.Linear(4, 4)
            self.cut = nn.Linear(4, 4)

        def forward(self, x):
            with torch.no_grad():
                fixed = torch.sigmoid(self.cut(x))
            return torch.tanh(self.used(x)) + 0 * self.dead(x) + fixed

    found = measured(Odd(), torch.randn(9, 4))
    states = {p.name: p.gradient.state for p in found.parameters}
    assert states["used.weight"] is State.VALUE
    assert states["unused.weight"] is State.NO_PATH
    assert states["dead.weight"] is State.ZERO
    assert states["cut.weight"] is State.NO_PATH
    assert any("sigmoid" in s.what for s in found.skipped)


def test_nonfinite_gradients_are_named_and_no_number():
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return torch.tanh(self.b(torch.tanh(self.a(x)).abs().mul(0).sqrt()))

    found = measured(Root(), torch.randn(9, 4))
    state = {p.name: p.gradient for p in found.parameters}
    assert state["a.weight"].state is State.NONFINITE
    assert state["a.weight"].quantiles is None
    assert found.sites[0].gradient_state is State.NONFINITE
    assert found.sites[0].output_gain is None


def test_samples_that_batch_statistics_couple_are_not_told_apart():
    net = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(),
                        nn.Linear(6, 2))  # fmt: skip
    found = measured(net, torch.randn(9, 6))
    assert found.run.batch_statistics == ("1",)
    assert found.heads[0].batch_axis is None
    assert any("coupled" in s.reason for s in found.skipped)
    net[1].num_batches_tracked += 1
    assert measured(net, torch.randn(9, 6)).heads[0].batch_axis == 0


class Layouts(nn.Module):
    """The same network with its samples on different axes inside."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):  # (n, T, 4)
        if self.kind == "time-first":
            return self.b(torch.tanh(self.a(x.transpose(0, 1)))).transpose(0, 1)
        if self.kind == "flat":
            return self.b(torch.tanh(self.a(x.flatten(0, 1)))).unflatten(0, x.shape[:2])
        if self.kind == "flat-time-first":
            flat = x.transpose(0, 1).flatten(0, 1)
            y = self.b(torch.tanh(self.a(flat)))
            return y.unflatten(0, (x.shape[1], x.shape[0])).transpose(0, 1)
        return self.b(torch.tanh(self.a(x)))


@pytest.mark.parametrize("kind", ["time-first", "flat", "flat-time-first"])
def test_the_layout_inside_makes_no_difference(kind):
    torch.manual_seed(0)
    plain = Layouts("plain").double()
    other = Layouts(kind).double()
    other.load_state_dict(plain.state_dict())
    x = torch.randn(7, 5, 4, dtype=torch.float64)
    one, two = measured(plain, x).sites[0], measured(other, x).sites[0]
    assert two.output_gain == pytest.approx(one.output_gain, rel=1e-9)
    assert two.sample_variance_ratio == pytest.approx(one.sample_variance_ratio, rel=1e-9)
    assert two.units == one.units


def test_a_block_with_a_skip_connection_has_a_local_ledger():
    entries = small("residual").heads[0].ledger.entries
    assert [e.bypass for e in entries] == [True, True, False]
    assert [b.site for b in entries[0].branches] == ["up.1/tanh"]


def test_total_is_null_with_a_reason_where_there_are_too_few_sites():
    found = small("rnn")
    assert found.heads[0].ledger.total is None
    assert any(s.what.startswith("total") for s in found.skipped)
    assert found.heads[0].ledger.time[0].steps == 6


class Elementwise(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, z):
        return self.function(z)


WRITTEN = {
    "where": (lambda z: torch.where(z > 0, z, torch.zeros_like(z)), F.relu),
    "where, a number": (lambda z: torch.where(z >= 0, z, 0.0), F.relu),
    "maximum": (lambda z: torch.maximum(z, torch.zeros_like(z)), F.relu),
    "maximum, 0 first": (lambda z: torch.maximum(torch.tensor(0.0), z), F.relu),
    "clamped from below": (lambda z: z.clamp(min=0), F.relu),
    "clamped": (lambda z: z.clamp(-1.0, 1.0), F.hardtanh),
    "clamped by functions": (lambda z: torch.clamp(z, min=0, max=6), F.relu6),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_an_activation_written_by_hand_is_the_one_that_it_is(name: str):
    found = []
    for function in WRITTEN[name]:
        torch.manual_seed(0)
        layers = [m for _ in range(3) for m in (nn.Linear(6, 6), Elementwise(function))]
        found.append(measured(nn.Sequential(*layers, nn.Linear(6, 2)), 2 * torch.randn(19, 6)))
    written, usual = found
    assert len(usual.sites) == 3
    assert written.sites == usual.sites
    assert written.heads[0].ledger == usual.heads[0].ledger


NO_ACTIVATIONS = {
    "limits far out": lambda z: z.clamp(-30, 30),
    "limits of another": lambda z: z.clamp(0.2, 0.9),
    "a choice between two": lambda z: torch.where(z > 0, z, 0.5 * z),
    "a mask": lambda z: torch.where(z > 0.3, z, torch.zeros_like(z)),
    "the larger of two": lambda z: torch.maximum(z, z.flip(-1)),
}


@pytest.mark.parametrize("name", NO_ACTIVATIONS)
def test_what_only_looks_like_an_activation_is_none(name: str):
    net = nn.Sequential(nn.Linear(6, 6), Elementwise(NO_ACTIVATIONS[name]), nn.Linear(6, 2))
    assert measured(net, torch.randn(19, 6)).sites == ()


class Waves(nn.Module):
    """Sines of positions and of the input, which are encodings, and behind a layer, which are
    units."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        with_place = torch.sin(x) + torch.sin(torch.arange(6.0))
        return self.last(torch.sin(self.first(with_place)))


def test_sines_are_units_behind_a_layer_and_encodings_elsewhere():
    found = measured(Waves(), torch.randn(19, 6))
    assert [s.id for s in found.sites] == ["first/sin"]
    assert found.skipped == measured(
        nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)), torch.randn(19, 6)
    ).skipped  # fmt: skip


class Routed(nn.Module):
    """The first number of a batch chooses the expert: other parameters, the same operations."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.end = nn.Linear(4, 3)

    def forward(self, x):
        expert = self.experts[int(x[0, 0] > 0)]
        return self.end(torch.tanh(expert(x)))


def test_batches_that_take_other_parameters_have_other_sites():
    x = torch.rand(6, 4, dtype=torch.float64) + 0.1
    x[3:] *= -1
    found = measured(Routed().double(), x, batch_size=3)
    assert {s.id for s in found.sites} == {"experts.0/tanh", "experts.1/tanh"}
    assert all(s.numel == 3 * 4 for s in found.sites)
