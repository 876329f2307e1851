"""Every remedy with every activation: it applies, with finite numbers, or says why it does not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradscope.repair.base import RemedyError, perform
from gradscope.repair.methods import METHODS
from tests.repair.test_fold import case_of

ACTIVATIONS = (
    nn.Tanh, nn.Sigmoid, nn.Softsign, nn.Hardtanh, nn.Hardsigmoid, nn.ReLU, nn.ReLU6, nn.LeakyReLU,
    nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Softplus,
    nn.LogSigmoid, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink,
)  # fmt: skip


def large(activation: type[nn.Module], normed: bool) -> nn.Sequential:
    torch.manual_seed(0)
    between = (lambda: [nn.BatchNorm1d(12)]) if normed else list
    module = nn.Sequential(
        nn.Linear(8, 12), *between(), activation(), nn.Linear(12, 12), *between(), activation(),
        nn.Linear(12, 4),
    )  # fmt: skip
    with torch.no_grad():
        for p in module.parameters():
            p.uniform_(-10, 10)
    return module.double().eval()


@pytest.mark.parametrize("normed", [False, True], ids=["bare", "normed"])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: a.__name__)
def test_a_remedy_applies_or_says_why_not(activation: type[nn.Module], normed: bool) -> None:
    torch.manual_seed(1)
    case = case_of(large(activation, normed), torch.randn(40, 8, dtype=torch.float64))
    applied = set()
    for name, remedy in METHODS.items():
        try:
            result = perform(remedy, case)
        except RemedyError:
            continue  # which says why
        applied.add(name)
        assert all(bool(torch.isfinite(v).all()) for v in result.changed.values()), name
    assert "restart" in applied
