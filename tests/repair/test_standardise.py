"""A standardisation that is folded afterwards: what is written does what was trained, whatever
kind of layer the input enters."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gradscope.model import Batch
from gradscope.repair.standardise import standardisation
from tests.repair.test_more_remedies import ROWS, Recurrent, X, Y, case

IMAGES = X.reshape(-1, 1, 8, 8)


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))


def flattened() -> nn.Module:
    return nn.Sequential(nn.Flatten(), *dense())


def filters(padding: int, norm: bool = False, channels: int = 4) -> nn.Module:
    side = (8 + 2 * padding - 3) // 2 + 1
    norms = [nn.BatchNorm2d(channels)] if norm else []
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, stride=2, padding=padding), *norms, nn.Tanh(), nn.Flatten(),
        nn.Linear(channels * side * side, 10),
    )  # fmt: skip


CASES = {
    "dense": (dense, X, True),
    "flattened": (flattened, IMAGES, True),
    "filters": (lambda: filters(0), IMAGES, True),
    "padded filters": (lambda: filters(1), IMAGES, False),
    "padded, batch norm": (lambda: filters(1, norm=True), IMAGES, False),
    "lstm": (lambda: Recurrent(nn.LSTM, 8, 10), ROWS, True),
    "gru": (lambda: Recurrent(nn.GRU, 8, 10), ROWS, True),
    "rnn": (lambda: Recurrent(nn.RNN, 8, 10), ROWS, True),
}


def outputs(module: nn.Module, x: torch.Tensor, values: dict[str, torch.Tensor]) -> torch.Tensor:
    other = copy.deepcopy(module).eval()
    own = dict((*other.named_parameters(), *other.named_buffers()))
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
        return other(x)


def found_for(name: str, spoil, learned: bool):
    make, x, _ = CASES[name]
    torch.manual_seed(0)
    module = make()
    x = spoil(x)
    whole = case(module, x, Y)
    return module, x, whole, standardisation(whole, learned)


@pytest.mark.parametrize("spoil", [lambda x: 1000 * x, lambda x: x + 1000], ids=["x1000", "+1000"])
@pytest.mark.parametrize("name", CASES)
def test_what_is_folded_does_what_was_trained(name, spoil):
    module, x, whole, found = found_for(name, spoil, learned=False)
    assert found is not None
    start = found.opened(whole.tensors)
    with whole.with_tensors(start):
        folded = found.folded(whole.tensors)
    trained = outputs(module, found(Batch((x,), {}, None, len(x), 0)).args[0], start)
    written = outputs(module, x, {**start, **folded})
    assert (trained - written).abs().max() < 0.02 * trained.std()


@pytest.mark.parametrize("name", CASES)
def test_what_has_been_learned_is_kept(name):
    module, x, whole, found = found_for(name, lambda x: 30 * x, learned=True)
    assert found is not None
    kept = outputs(module, found(Batch((x,), {}, None, len(x), 0)).args[0],
                   found.unfolded(whole.tensors))  # fmt: skip
    assert torch.allclose(kept, outputs(module, x, {}), atol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_an_offset_is_taken_out(name):
    """Also where a padding is in the way, as long as there is nothing to keep."""
    _, x, _, found = found_for(name, lambda x: x + 1000, learned=False)
    assert found is not None
    inner = found(Batch((x,), {}, None, len(x), 0)).args[0]
    assert inner.abs().mean() < 3
    assert found.masked is not CASES[name][2]


def test_taps_that_meet_the_padding_stay_shut():
    module, x, whole, found = found_for("padded filters", lambda x: x + 1000, learned=False)
    assert found is not None
    with torch.no_grad():
        for name, value in found.opened(whole.tensors).items():
            whole.tensors[name].copy_(value)
    optimiser = torch.optim.Adam(module.parameters(), 1e-2)
    with found.shut(whole.tensors):
        for _ in range(3):
            optimiser.zero_grad()
            module((x - 1000)[:64]).square().mean().backward()
            optimiser.step()
    taps = module[0].weight.detach().flatten(1)
    assert (taps != 0).all(dim=0).tolist() == found.doors[0].taps.tolist()
    assert found.doors[0].taps.reshape(3, 3).tolist() == [[False] * 3, *[[False, True, True]] * 2]


def test_filters_that_have_learned_keep_their_taps():
    found = found_for("padded filters", lambda x: x + 1000, learned=True)[3]
    assert found is not None
    assert not found.masked
    assert not found.mean.any()


class Rooted(nn.Module):
    """The input is bent before it enters a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.abs().sqrt())


def test_no_standardisation_where_it_cannot_be_folded():
    torch.manual_seed(0)
    assert standardisation(case(Rooted(), 1000 * X, Y), learned=False) is None


@pytest.mark.parametrize(
    ("column", "own"),
    [
        (
            lambda n: torch.arange(n) % 7,
            True,
        ),  # of another scale
        (lambda n: 5.0 + 1e-3 * (torch.arange(n) % 7), True),
        (lambda n: (torch.arange(n) == 3).float(), False),  # lit in one sample
        (lambda n: torch.full((n,), 0.1), False),
        (lambda n: torch.zeros(n), False),
    ],
    ids=["small", "small about 5", "rare", "constant", "zero"],
)
def test_a_feature_of_a_smaller_scale_has_its_own(column, own):
    x = 1e4 * X.clone()
    x[:, 0] = column(len(x))
    whole = case(dense(), x, Y)
    found = standardisation(whole, learned=False)
    assert found is not None
    seen = torch.cat([b.args[0] for b in whole.data.once()])[:, 0]
    inner = (x[:, 0] - found.mean.flatten()[0]) / found.spread.flatten()[0]
    expected = 1.0 if own else seen.std() / found.spread.median()
    assert inner.std() == pytest.approx(float(expected), rel=0.1, abs=1e-3)
