"""Measured facts about small networks on scikit-learn's digits, as cases that must come out."""

from __future__ import annotations

import math
import statistics
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from gradscope.diagnosis import Verdict, diagnose
from gradscope.findings import Cause
from gradscope.rules import run_rules
from tests.support import measured, sample_of

SAMPLES = Path(__file__).parent.parent / "sample_models"
sys.path.insert(0, str(SAMPLES))
import build  # noqa: E402

DATA = build.digits()
X, Y = DATA.train
HELD_OUT = sample_of(*DATA.val)


def judged(m):
    return diagnose(m, run_rules(m))


def load(name: str) -> nn.Module:
    return torch.load(SAMPLES / name, weights_only=False)


def deep(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build.mlp(20, 8, nn.Tanh)


def test_case_1_a_deep_net_at_its_default_start():
    found = measured(load("deep_tanh.pt"), X, Y, validation=HELD_OUT)
    ledger = found.ledger
    assert ledger.total == pytest.approx(-5.8, abs=0.5)
    assert ledger.weight == pytest.approx(-5.3, abs=0.4)
    assert ledger.activation == pytest.approx(-0.5, abs=0.2)
    assert judged(found).verdict is Verdict.UNHEALTHY
    assert judged(found).causes[0] is Cause.DEPTH_GAIN


def test_case_1_over_seeds():
    ledgers = [measured(deep(seed), X[:256], Y[:256]).ledger for seed in range(8)]
    assert statistics.mean(led.total for led in ledgers) == pytest.approx(-5.8, abs=0.5)
    assert statistics.mean(led.activation for led in ledgers) == pytest.approx(-0.5, abs=0.2)
    assert all(led.total < -4.5 for led in ledgers)


def test_case_3_small_weights():
    found = measured(load("small_weights.pt"), X, Y, validation=HELD_OUT)
    assert found.ledger.total == pytest.approx(-17.1, abs=1)
    assert judged(found).verdict is Verdict.UNHEALTHY
    assert judged(found).causes[0] is Cause.SMALL_WEIGHTS


def test_case_4_large_weights():
    found = measured(load("saturated_tanh.pt"), X, Y, validation=HELD_OUT)
    assert found.hidden_saturation == pytest.approx(0.96, abs=0.02)
    assert found.skill.accuracy <= 0.20
    assert judged(found).verdict is Verdict.UNHEALTHY
    assert judged(found).causes[0] is Cause.LARGE_PARAMETERS
    assert found.ledger.total > 0  # norms alone would call it healthy


def test_case_6_plateaued():
    found = measured(load("plateaued_tanh.pt"), X, Y, validation=HELD_OUT)
    assert found.ledger.median < -5
    assert judged(found).verdict is Verdict.UNHEALTHY


def test_case_7_logistic():
    found = measured(load("logistic.pt"), X, Y, validation=HELD_OUT)
    assert judged(found).verdict is Verdict.UNHEALTHY
    assert judged(found).causes[0] is Cause.FLAT_SLOPE


def test_case_8_an_exact_conversion_of_the_logistic_keeps_the_function():
    """sigma(z) = 1/2 + 1/2 tanh(z/2): the output is the same, and so is its gradient."""
    before = load("logistic.pt").double()
    layers = []
    linears = [m for m in before if isinstance(m, nn.Linear)]
    carried = torch.zeros(linears[0].in_features, dtype=torch.float64)
    for i, linear in enumerate(linears):
        new = nn.Linear(linear.in_features, linear.out_features).double()
        weight = linear.weight.detach() * (0.5 if i else 1.0)
        bias = linear.bias.detach() + (weight.sum(1) if i else 0)
        last = i == len(linears) - 1
        scale = 1.0 if last else 0.5
        new.weight.data, new.bias.data = weight * scale, bias * scale
        layers += [new] if last else [new, nn.Tanh()]
    del carried
    after = nn.Sequential(*layers)
    x = X.double()
    assert (before(x) - after(x)).abs().max() < 1e-5
    slopes = [measured(m, x[:64]).ledger.slope for m in (before, after)]
    assert slopes == [pytest.approx(9 * -0.60206, abs=1e-3), 0.0]


@pytest.mark.parametrize("name", ["small_weights.pt", "deep_tanh.pt"])
def test_case_8_a_gamed_ratio_does_not_change_the_verdict(name):
    """Where tanh(z) = z, scale moved from the first layer to the second keeps the function, and
    makes the ratio of the first gradient to the last whatever one likes."""
    module = load(name)
    before = measured(module, X[:256], Y[:256])
    outputs = module(X[:256])
    factor = 10 ** (-before.ledger.total - 1)
    with torch.no_grad():
        module[0].weight.div_(factor)
        module[0].bias.div_(factor)
        module[2].weight.mul_(factor)
    after = measured(module, X[:256], Y[:256])
    assert (module(X[:256]) - outputs).abs().max() < 1e-3
    assert after.ledger.total > -3
    assert judged(after).verdict is judged(before).verdict is Verdict.UNHEALTHY


def narrow(y: torch.Tensor, steps: int) -> nn.Module:
    """One hidden layer of 8, trained long: it works, and saturates."""
    torch.manual_seed(0)
    return build.train(build.mlp(1, 8, nn.Tanh), build.Data((X, y), DATA.val), steps, lr=5e-3)


def test_case_10_narrow_and_converged():
    model = narrow(Y, 8000)
    with_labels = measured(model, X, Y, validation=HELD_OUT)
    assert 0.65 <= with_labels.hidden_saturation <= 0.80
    assert judged(with_labels).verdict is Verdict.HEALTHY
    assert judged(measured(model, X)).verdict is Verdict.UNDETERMINED


def test_wrong_labels_do_not_make_a_network_unhealthy():
    """30 % of the training labels are wrong: the loss stays high, held-out answers are right."""
    generator = torch.Generator().manual_seed(0)
    wrong = torch.rand(len(Y), generator=generator) < 0.3
    y = torch.where(wrong, torch.randint(0, 10, Y.shape, generator=generator), Y)
    model = narrow(y, 6000)
    found = measured(model, X, y, validation=HELD_OUT)
    loss = found.sample_skill.loss / math.log(10)
    assert loss > 0.25
    assert found.skill.accuracy > 0.75
    assert judged(found).verdict is Verdict.HEALTHY


def test_knowing_the_frequencies_of_the_classes_is_no_skill():
    """At 99:1 a net that is stuck scores CE / ln C = .08: it must not be acquitted by that."""
    model = deep(0)
    y = (torch.arange(len(X)) % 100 == 0).long()
    with torch.no_grad():
        model[-1].bias.copy_(torch.tensor([math.log(0.99), math.log(0.01)] + [-20.0] * 8))
    found = measured(model, X, y)
    assert found.skill.loss / math.log(2) == pytest.approx(0.08, abs=0.01)
    assert found.skill.accuracy > 0.98
    assert judged(found).verdict is Verdict.UNHEALTHY
    assert judged(found).causes[0] is Cause.DEPTH_GAIN


HEALTHY = ["healthy_tanh.pt", "paper_cnn.pt", "relu.pt"]


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_sample_models(name):
    found = measured(load(name), X, Y, validation=HELD_OUT)
    assert found.skill.accuracy >= 0.95
    assert judged(found).verdict is Verdict.HEALTHY
    without = measured(load(name), X)
    assert judged(without).verdict is not Verdict.UNHEALTHY


@pytest.mark.parametrize("name", ["lstm", "residual"])
def test_healthy_sample_models_with_an_architecture(name):
    module = {"lstm": build.LSTMClassifier, "residual": build.ResidualMLP}[name]()
    module.load_state_dict(torch.load(SAMPLES / f"{name}_state.pt"))
    found = measured(module, X, Y, validation=HELD_OUT)
    assert found.skill.accuracy >= 0.95
    assert judged(found).verdict is Verdict.HEALTHY
    assert judged(measured(module, X)).verdict is not Verdict.UNHEALTHY


def test_raw_pixels_are_large_inputs_and_not_large_weights():
    data = build.raw(DATA)
    found = measured(load("raw_pixels.pt"), *data.train, validation=sample_of(*data.val))
    assert judged(found).verdict is Verdict.UNHEALTHY
    assert judged(found).causes[0] is Cause.LARGE_INPUTS


def test_the_sample_models_stay_small():
    files = [p for p in SAMPLES.iterdir() if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 5_000_000
    listed = (SAMPLES / "README.md").read_text()
    assert all(p.name in listed for p in files if p.suffix in (".pt", ".onnx", ".npz"))
