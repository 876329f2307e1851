"""Every measured quantity against naive autograd in float64, to 1e-6."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from gradscope.measurements import Measurements, State
from tests import reference
from tests.probe.cases import CASES, Case
from tests.reference import BOUNDED, Reference
from tests.support import measured

DRAWS = 4
near = lambda value: pytest.approx(value, rel=1e-6, abs=1e-9)  # noqa: E731


CHAINS = [case for case in CASES if case.chain]
RECURRENT = [case for case in CASES if case.name in ("rnn", "lstm", "gru")]
of = lambda cases: pytest.mark.parametrize(  # noqa: E731
    "both", cases, ids=[c.name for c in cases], indirect=True, scope="module"
)


@pytest.fixture(params=CASES, ids=lambda c: c.name, scope="module")
def both(request: pytest.FixtureRequest) -> tuple[Case, Measurements, Reference, torch.nn.Module]:
    case: Case = request.param
    torch.manual_seed(1)
    module = case.module().double().eval()
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(1.7)  # some saturation, so that shares are neither 0 nor 1
    x = case.x()
    found = measured(module, x, draws=DRAWS)
    expected = reference.run(case.twin(module), dict(module.named_parameters()), x, draws=DRAWS)
    return case, found, expected, module


def test_sites_are_those_of_the_model(both):
    _, found, expected, _ = both
    known = {s.id for s in found.sites if s.role != "output"}
    assert known == set(expected.kinds)
    kinds = {s.id: s.kind for s in found.sites}
    assert all(kinds[name] == kind for name, kind in expected.kinds.items())


def test_gain_relative_to_the_output(both):
    _, found, expected, _ = both
    for site in found.sites:
        if site.role == "output":
            assert site.gradient_state is State.NO_PATH
            continue
        rms = math.sqrt((expected.pre[site.id] ** 2).mean())
        assert site.output_gain == near(math.log10(rms))


def test_saturation_and_scale(both):
    _, found, expected, _ = both
    for site in found.sites:
        acts = [a for a in expected.tape.acts if a.site == site.id]
        if not acts:
            continue
        z = torch.stack([a.z for a in acts]).detach()
        a = torch.stack([a.a for a in acts]).detach()
        assert site.calls == len(acts)
        assert site.numel == z.numel()
        assert site.pre_activation_rms == near(float(z.square().mean().sqrt()))
        assert site.activation_rms == near(float(a.square().mean().sqrt()))
        ratios = [reference.variance_ratio(act.a.detach()) for act in acts]
        assert site.sample_variance_ratio == near(sum(ratios) / len(ratios))
        assert (site.saturated_fraction is not None) == (site.kind in BOUNDED)
        if site.kind in BOUNDED:
            full = torch.stack([reference.saturated(act) for act in acts])
            assert site.saturated_fraction == near(float(full.double().mean()))
            rho = torch.stack([reference.phi_prime(act) for act in acts])
            slope = reference.SLOPES.get(site.kind, 1.0)
            assert site.mean_relative_derivative == near(float(rho.mean()) / slope)


def test_shrink_is_what_brings_the_mean_derivative_to_eight_tenths(both):
    _, found, expected, _ = both
    for site in found.sites:
        acts = [a for a in expected.tape.acts if a.site == site.id]
        if not acts or site.kind not in BOUNDED:
            assert acts == [] or site.shrink is None
            continue
        slope = reference.SLOPES.get(site.kind, 1.0)

        def mean(alpha, acts=acts, slope=slope):
            rho = [reference.phi_prime(dataclasses.replace(a, z=a.z / alpha)) for a in acts]
            return float(torch.stack(rho).mean()) / slope

        if mean(1.0) >= 0.8:
            assert site.shrink == pytest.approx(1.0, rel=0.03)
        elif site.kind != "hardtanh":
            assert mean(site.shrink * 1.03) > 0.8 > mean(site.shrink / 1.03)
        else:  # its mean is a step function of alpha
            assert mean(site.shrink * 1.07) >= 0.8 >= mean(site.shrink / 1.07)


def test_median_over_samples_and_silent_ones(both):
    _, found, expected, _ = both
    for site in found.sites:
        if site.role == "output":
            assert site.output_gain_median is None
            continue
        norms = expected.pre[site.id]
        assert site.silent_fraction == near(float((norms == 0).mean()))
        with np.errstate(divide="ignore"):
            middle = float(np.median(np.log10(norms)))
        assert site.output_gain_median == (near(middle) if math.isfinite(middle) else None)


def test_saturated_share_of_every_unit(both):
    case, found, expected, _ = both
    for site in found.sites:
        acts = [a for a in expected.tape.acts if a.site == site.id]
        if not acts or site.kind not in BOUNDED:
            continue
        full = torch.stack([reference.saturated(act) for act in acts]).double()
        axis = 2 if full.dim() == 5 else full.dim() - 1  # channels of images, else features
        others = [d for d in range(full.dim()) if d != axis]
        assert site.units is not None
        assert list(site.units.saturated_share) == near(full.mean(dim=others).tolist()), case.name


def test_share_of_samples_for_which_a_unit_is_off(both):
    _, found, _, _ = both
    for site in found.sites:
        if site.units is None or site.units.off_share is None:
            assert site.zero_fraction is None or site.units is None
            continue
        shares = np.array(site.units.off_share)
        assert shares.mean() == near(site.zero_fraction)
        assert int((shares == 1).sum()) == site.units.dead_count


@of(CHAINS)
def test_ledger_of_a_chain(both):
    case, found, expected, _ = both
    truth = reference.chain(expected, list(case.chain))
    ledger = found.ledger
    assert ledger.total == near(truth.total)
    assert ledger.total_error == near(truth.total_error)
    assert ledger.median == near(truth.median)
    assert [e.site for e in ledger.entries] == list(reversed(case.chain))
    inner = ledger.entries[1:]
    assert [e.weight for e in inner] == near(truth.weight)
    assert [e.slope for e in inner] == near(truth.slope)
    assert [e.activation for e in inner] == near(truth.activation)
    assert [e.cumulative for e in inner] == near(truth.cumulative)
    assert ledger.weight == near(sum(truth.weight))
    assert ledger.activation == near(sum(truth.activation))


def test_parameter_gradients(both):
    _, found, expected, module = both
    first = {id(p): name for name, p in reversed(list(module.named_parameters()))}
    for parameter in found.parameters:
        assert parameter.used
        g = expected.gradients[first[id(module.get_parameter(parameter.name))]]
        stats = parameter.gradient
        norm = float(g.norm())
        if norm == 0:
            assert stats.state in (State.ZERO, State.NO_PATH)
            continue
        assert stats.state is State.VALUE
        assert stats.norm == near(norm)
        assert stats.rms == near(norm / math.sqrt(g.numel()))
        assert stats.max_abs == near(float(g.abs().max()))
        assert stats.zero_fraction == near(float((g == 0).double().mean()))
        assert stats.fp16_underflow_fraction == near(
            float(((g.abs() < 2.0**-25) & (g != 0)).double().mean())
        )
        exact = np.quantile(g.abs().numpy(), 0.5, method="lower")
        assert stats.quantiles["q50"] == pytest.approx(exact, rel=stats.quantile_error, abs=1e-300)
        lowest = math.frexp(float(g.abs()[g != 0].min()))[1] - 1
        assert stats.octaves.lowest == lowest or len(stats.octaves.counts) == 64
        assert sum(stats.octaves.counts) == int((g != 0).sum())


def test_weights(both):
    _, found, _, module = both
    for parameter in found.parameters:
        w = module.get_parameter(parameter.name).detach()
        assert parameter.weight.rms == near(float(w.square().mean().sqrt()))
        assert parameter.weight.max_abs == near(float(w.abs().max()))
        drawn = parameter.weight.histogram
        counts, _ = np.histogram(w.double().numpy(), len(drawn.counts), (drawn.low, drawn.high))
        assert abs(counts - np.array(drawn.counts)).sum() <= 0.01 * w.numel()  # on a bin's edge
        if w.dim() >= 2:
            largest = float(torch.linalg.svdvals(w.reshape(len(w), -1))[0])
            assert parameter.weight.spectral_norm == near(largest)
        else:
            assert parameter.weight.spectral_norm is None
        ratio = float(w.square().mean().sqrt()) * math.sqrt(parameter.fan_in or 0)
        if parameter.fan_in:
            gains = (ratio, ratio / math.sqrt(2))
            assert any(parameter.weight.init_ratio == near(g) for g in gains)


@of(RECURRENT)
def test_time_profile_of_recurrent_sites(both):
    _, found, expected, _ = both
    for site in found.sites:
        acts = [a for a in expected.tape.acts if a.site == site.id]
        assert [t.step for t in site.time] == list(range(len(acts)))
        shares = [float(reference.saturated(a).double().mean()) for a in acts]
        assert [t.saturated_fraction for t in site.time] == near(shares)
