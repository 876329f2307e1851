"""Weights that are made of other parameters."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.probe.test_awkward import _wrapped, data, near
from tests.support import measured

pytestmark = pytest.mark.filterwarnings("ignore")


REPARAMETRISED = {
    "weight norm, old": (nn.utils.weight_norm, "weight_v", "weight_g"),
    "weight norm": (
        nn.utils.parametrizations.weight_norm,
        "parametrizations.weight.original1", "parametrizations.weight.original0",
    ),
    "spectral norm, old": (nn.utils.spectral_norm, "weight_orig", None),
    "spectral norm": (
        nn.utils.parametrizations.spectral_norm, "parametrizations.weight.original", None
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REPARAMETRISED)
def test_whether_a_weight_is_large_is_told_of_the_one_that_is_used(name):
    wrap, whole, length = REPARAMETRISED[name]
    module = _wrapped(wrap)().eval()
    with torch.no_grad():
        if length is None:
            module[0].get_parameter(whole).mul_(7)  # divided out again
        else:
            module[0].get_parameter(length).mul_(3)
        module(data(5))
        used = module[0].weight.detach()
    found = {p.name: p for p in measured(module, data(5)).parameters}
    ratio = float(used.square().mean().sqrt()) * math.sqrt(5)
    assert found[f"0.{whole}"].weight.init_ratio == near(ratio)
    assert found[f"0.{whole}"].layer == "0"
    if length is not None:
        assert found[f"0.{length}"].weight.init_ratio is None
        assert found[f"0.{length}"].fan_in is None
