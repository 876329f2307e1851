"""Remedies for what is not a plain chain of large weights: laws, and bands that were measured."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from gradscope.repair.alpha import Alpha
from gradscope.repair.base import Case, Remedy, RemedyError, perform
from gradscope.repair.batch_norm_fold import BatchNormFold, find_folds
from gradscope.repair.centre import Centre
from gradscope.repair.gates import KappaGates
from gradscope.repair.identity import Identity
from gradscope.repair.kappa import Kappa
from gradscope.repair.minibatches import Minibatches
from gradscope.repair.recurrent import find_parts, run
from gradscope.repair.revive import Revive
from gradscope.repair.std_restore import StdRestore
from gradscope.repair.temperature import Temperature
from tests.repair.test_fold import changed_by
from tests.repair.test_remedies import DATA, X, Y, case_of
from tests.support import sample_of

ROWS = X.reshape(-1, 8, 8)


def case(module: nn.Module, x: torch.Tensor = X, y: torch.Tensor = Y) -> Case:
    found = replace(case_of(module, x, y), buffers=dict(module.named_buffers()))
    if x.dim() == 3:
        held = sample_of(x[::4], y[::4])
        found.data = Minibatches(sample_of(x, y, 128), held, size=32, seed=0, exact=False)
    return found


def repaired(module: nn.Module, remedy: Remedy, x: torch.Tensor = X, y: torch.Tensor = Y):
    return changed_by(module, perform(remedy, case(module, x, y)))


def accuracy(module: nn.Module) -> float:
    x, y = DATA.val
    module.eval()
    with torch.no_grad():
        return float((module(x).argmax(dim=1) == y).double().mean())


def trained(module: nn.Module, steps: int, x: torch.Tensor = X, y: torch.Tensor = Y) -> nn.Module:
    torch.manual_seed(1)
    module.train()
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3)
    for _ in range(steps):
        rows = torch.randint(0, len(x), (32,))
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(x[rows]), y[rows]).backward()
        if isinstance(module, Recurrent):
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
    return module.eval()


def mlp(kind: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), kind(), nn.Linear(32, 32), kind(), nn.Linear(32, 10))


@pytest.fixture(scope="module")
def learned() -> dict[str, nn.Module]:
    """Two nets that have learned digits."""
    return {"tanh": trained(mlp(nn.Tanh), 1000), "relu": trained(mlp(nn.ReLU), 1000)}


class Recurrent(nn.Module):
    """A recurrent layer and a readout of its last output."""

    def __init__(self, kind: type[nn.RNNBase], inputs: int = 8, classes: int = 10, **given):
        super().__init__()
        self.rnn = kind(inputs, 32, batch_first=True, **given)
        self.head = nn.Linear(32 * (2 if given.get("bidirectional") else 1), classes)

    def forward(self, x):
        return self.head(self.rnn(x.reshape(len(x), -1, self.rnn.input_size))[0][:, -1])


def test_large_biases_are_centred(learned):
    """Reference: at least .90 right after; a refit is lost, since nothing is left to fit from."""
    module = copy.deepcopy(learned["tanh"])
    with torch.no_grad():
        module[0].bias.add_(15 * torch.randn(32))
        module[2].bias.add_(15 * torch.randn(32))
    assert accuracy(module) < 0.3
    assert accuracy(repaired(module, Kappa(refit=True))) < 0.3
    assert accuracy(repaired(module, Centre())) > 0.9


def test_ordinary_biases_are_left(learned):
    with pytest.raises(RemedyError, match="no bias was found"):
        perform(Centre(), case(learned["tanh"]))


def test_dead_units_come_back(learned):
    """Reference: at least .75 right after, at least .94 after 100 steps."""
    module = copy.deepcopy(learned["relu"])
    with torch.no_grad():
        module[2].bias.fill_(-100)
    assert accuracy(module) < 0.2
    back = repaired(module, Revive())
    assert accuracy(back) > 0.75
    assert accuracy(trained(back, 100)) > 0.94


def test_units_without_weights_start_again_and_disturb_nothing(learned):
    module = copy.deepcopy(learned["relu"])
    with torch.no_grad():
        module[2].weight[:8] = 0
        module[2].bias[:8] = -1
    back = repaired(module, Revive())
    assert bool((back[2].weight[:8].flatten(1).std(dim=1) > 0.1).all())
    assert not back[4].weight[:, :8].any()
    held = repaired(module, Revive())
    assert torch.equal(back[2].weight, held[2].weight)
    assert accuracy(back) == pytest.approx(accuracy(module), abs=0.05)


@pytest.mark.parametrize(("share", "least"), [(0.01, 0.95), (0.1, 0.85), (0.7, 0.0)])
def test_lost_weights(learned, share, least):
    module = copy.deepcopy(learned["relu"])
    lost = torch.rand(32, 32, generator=torch.Generator().manual_seed(0)) < share
    with torch.no_grad():
        module[2].weight[lost] = float("nan")
    back = repaired(module, Revive())
    assert torch.isfinite(back[2].weight).all()
    assert accuracy(back) >= least
    if share < 0.5:
        assert torch.equal(back[2].weight[~lost], module[2].weight[~lost])
    else:
        assert (back[2].weight != 0).all()


def test_nothing_to_revive():
    with pytest.raises(RemedyError, match="every weight is finite"):
        perform(Revive(), case(mlp(nn.Tanh)))


def norms(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Tanh(),
        nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.Tanh(), nn.Flatten(),
        nn.Linear(256, 32), nn.Tanh(), nn.Linear(32, 10),
    )  # fmt: skip


def test_a_frozen_last_layer_makes_no_other_one_the_last():
    """Outputs are scaled in the last layer; one that only feeds a norm is none."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 10)
    )
    whole = case(module)
    free = replace(whole, tensors={n: t for n, t in whole.tensors.items() if n[0] != "4"})
    assert [link.weight for link in whole.chain.last] == ["4.weight"]
    assert free.chain.last == ()


def test_a_batch_norm_takes_the_scale_of_its_weights():
    module = trained(norms(), 100)
    with torch.no_grad():
        for i in (1, 4):
            module[i].weight.mul_(50)
            module[i].bias.mul_(50)
            module[i + 1].running_mean.mul_(50)
            module[i + 1].running_var.mul_(2500)
    with torch.no_grad():
        before = module(X)
        found = case(module)
        assert [f.weight for f in find_folds(found)] == ["1.weight", "4.weight"]
        result = perform(BatchNormFold(), found)
        assert result.changed["1.weight"].flatten(1).norm(dim=1) == pytest.approx(1.0)
        only = {n: v for n, v in result.changed.items() if n[:2] in ("1.", "4.") or "running" in n}
        with found.with_tensors(only):
            drift = (module(X) - before).norm() / before.norm()
    assert float(drift) < 1e-3


def large_before_norms(seed: int) -> nn.Sequential:
    module = norms(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.uniform_(-10, 10)
    return trained(module, 50)


def test_large_weights_before_batch_norms_learn_again():
    """Reference: at least .92 after 100 steps; the mean of three starts."""
    module = large_before_norms(0)
    assert accuracy(trained(copy.deepcopy(module), 100)) < 0.6
    repairs = (repaired(large_before_norms(seed), BatchNormFold()) for seed in range(3))
    assert sum(accuracy(trained(module, 100)) for module in repairs) / 3 >= 0.92


@pytest.mark.parametrize("has_learned", [True, False])
def test_the_scales_of_norms_are_kept_where_something_was_learned(has_learned):
    """Where nothing was, diag(gamma) becomes its orthogonal factor, which is its signs."""
    module = norms()
    with torch.no_grad():
        for i in (2, 5):
            module[i].weight.uniform_(-10, 10)
    module = trained(module, 100) if has_learned else module
    with torch.no_grad():
        module[1].weight.mul_(50)
        module[2].running_mean.mul_(50)
        module[2].running_var.mul_(2500)
    back = repaired(module, BatchNormFold())
    for i in (2, 5):
        ratio = (back[i].weight / module[i].weight).detach()
        assert bool((ratio > 0).all())
        assert (float(ratio.std() / ratio.mean()) < 1e-4) == has_learned
        if not has_learned:
            assert float(back[i].weight.detach().abs().std()) < 1e-6
            assert not bool(back[i].bias.any())


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (nn.LSTM, {}),
        (nn.GRU, {"bidirectional": True}),
        (nn.RNN, {"nonlinearity": "relu"}),
        (nn.LSTM, {"num_layers": 2, "bidirectional": True, "bias": False}),
    ],
)
def test_the_trajectory_is_that_of_torch(kind, given):
    torch.manual_seed(0)
    module = Recurrent(kind, **given).double()
    tensors = dict(module.named_parameters())
    x = ROWS[:9].double()
    parts = find_parts(case(module, ROWS.double()))
    y = x.transpose(0, 1)
    for depth in sorted({p.depth for p in parts}):
        here = [run(p, y, tensors.__getitem__)[0] for p in parts if p.depth == depth]
        y = torch.cat(here, dim=2)
    assert torch.allclose(y.transpose(0, 1), module.rnn(x)[0], atol=1e-12)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_gates_work_again_and_what_was_learned_is_kept(kind):
    torch.manual_seed(0)
    module = trained(Recurrent(kind), 600)
    with torch.no_grad():
        for p in module.rnn.parameters():
            p.mul_(30)
    assert accuracy(module) < 0.75
    back = repaired(module, KappaGates())
    assert accuracy(back) > accuracy(module) + 0.05
    (part,) = find_parts(case(back))
    tensors = dict(back.named_parameters())
    for z in run(part, ROWS.transpose(0, 1).double(), tensors.__getitem__)[1]:
        assert float(1 - torch.tanh(z / 2).square().mean()) > 0.75


def lag(steps: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of four inputs was on in the first of many steps."""
    random = torch.Generator().manual_seed(0)
    x = 0.1 * torch.randn(count, steps, 4, generator=random)
    y = torch.randint(0, 4, (count,), generator=random)
    x[torch.arange(count), 0, y] += 1
    return x, y


@pytest.mark.parametrize(("steps", "identity"), [(50, False), (70, True)])
def test_a_recurrent_matrix_keeps_what_it_is_given(steps, identity):
    """Reference: at least .98 after 100 steps with a lag of 50."""
    torch.manual_seed(0)
    module = Recurrent(nn.RNN, 4, 4)
    with torch.no_grad():
        module.rnn.weight_hh_l0.mul_(0.3)
    x, y = lag(steps, 800)
    back = repaired(module, Identity(), x, y)
    product = back.rnn.weight_hh_l0 @ back.rnn.weight_hh_l0.T
    assert torch.allclose(product, torch.eye(32), atol=1e-5)
    assert torch.equal(back.rnn.weight_hh_l0, torch.eye(32)) is identity
    if not identity:
        hits = trained(back, 100, x, y)(x).argmax(dim=1) == y
        assert float(hits.double().mean()) > 0.98


def test_at_chance_the_readout_is_not_fitted_to_noise():
    """Reference: gates shrunk and the forget gate open, at least .95 after 400 steps of a lag."""
    torch.manual_seed(0)
    module = Recurrent(nn.LSTM, 4, 4)
    with torch.no_grad():
        for p in module.rnn.parameters():
            p.mul_(30)
    x, y = lag(60, 600)
    found = case(module, x, y)
    result = perform(KappaGates(), found)
    assert "head.weight" not in result.changed
    both = result.changed["rnn.bias_ih_l0"] + result.changed["rnn.bias_hh_l0"]
    assert torch.equal(both[32:64], torch.ones(32))


def test_forget_gates_open():
    module = Recurrent(nn.LSTM)
    back = repaired(module, Identity(), ROWS)
    both = back.rnn.bias_ih_l0 + back.rnn.bias_hh_l0
    assert torch.equal(both[32:64], torch.ones(32))
    assert torch.equal(back.rnn.bias_ih_l0[:32], module.rnn.bias_ih_l0[:32])


@pytest.mark.parametrize("remedy", [KappaGates(), Identity()])
def test_what_is_not_recurrent_is_refused(remedy):
    with pytest.raises(RemedyError, match="no recurrent layer was found"):
        perform(remedy, case(mlp(nn.Tanh)))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(8, 32), nn.Linear(32, 10)
        self.block = nn.TransformerEncoderLayer(32, 4, 32, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.head(self.block(self.embed(x.reshape(len(x), 8, 8))).mean(dim=1))


def test_attention_is_cooled_once():
    torch.manual_seed(0)
    module = Attention()
    with torch.no_grad():
        module.block.self_attn.in_proj_weight[:64].mul_(20)
    back = repaired(module, Temperature(), ROWS)
    old, new = (m.block.self_attn.in_proj_weight for m in (module, back))
    assert torch.equal(old[64:], new[64:])
    with pytest.raises(AssertionError):
        assert torch.allclose(old[:64], new[:64])
    again = perform(Temperature(), case(back, ROWS))
    assert all(torch.allclose(v, dict(back.named_parameters())[n], rtol=1e-3)
               for n, v in again.changed.items())  # fmt: skip


def test_what_attention_has_learned_is_back_at_once():
    """Logits are put back to the size that learned attention has, not to 1."""
    torch.manual_seed(2)
    module = trained(Attention(), 500)
    whole = accuracy(module)
    with torch.no_grad():
        module.block.self_attn.in_proj_weight[:64].mul_(10)
        module.block.self_attn.in_proj_bias[:64].mul_(10)
    assert accuracy(module) < whole - 0.03
    assert accuracy(repaired(module, Temperature())) == pytest.approx(whole, abs=0.02)


class Wide(nn.Module):
    """alpha phi(z / alpha), written out."""

    def __init__(self, net: nn.Sequential, alpha: float):
        super().__init__()
        self.net, self.alpha = net, alpha

    def forward(self, x):
        for layer in self.net:
            linear = isinstance(layer, nn.Linear)
            x = layer(x) if linear else self.alpha * layer(x / self.alpha)
        return x


@pytest.mark.parametrize("kind", [nn.Tanh, nn.Sigmoid, nn.Softsign])
@pytest.mark.parametrize("alpha", [2.0, 5.0])
def test_alpha_is_folded_exactly(kind, alpha):
    module = mlp(kind)
    with torch.no_grad():
        folded = repaired(module, Alpha(alpha))(X)
        assert torch.allclose(folded, Wide(module, alpha)(X), atol=1e-5)


def test_alpha_is_refused_where_it_would_not_pass():
    with pytest.raises(RemedyError, match="no bounded hidden activation"):
        perform(Alpha(), case(mlp(nn.ReLU)))


def test_a_matrix_of_one_number_has_no_spread_to_restore():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(64, 1), nn.Tanh(), nn.Linear(1, 1), nn.Tanh(), nn.Linear(1, 10)
    )
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(30)
    changed = perform(StdRestore(), case(module)).changed
    assert "2.weight" not in changed
    assert {"0.weight", "0.bias", "4.weight"} <= changed.keys()


@pytest.mark.parametrize(
    ("remedy", "kind", "given"),
    [(Identity(), nn.GRU, {}), (KappaGates(), nn.RNN, {"nonlinearity": "relu"})],
)
def test_a_recurrent_layer_of_another_kind_is_not_overlooked(remedy, kind, given):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = kind(8, 4, batch_first=True, **given), nn.Linear(4, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(x.reshape(-1, 8, 8))[0][:, -1])

    assert "rnn.weight_hh_l0 belongs to no " in (remedy.requires(case(Net())) or "")
