"""The calibration zoo is what it says: its split, its plants, its truth, its arithmetic."""

from __future__ import annotations

import copy
import dataclasses
import tarfile

import numpy as np
import pytest
import torch

from bench.zoo import data, nets, plants, starts
from bench.zoo.build import _config
from bench.zoo.conditions import FAULTS, HEALTHY
from bench.zoo.document import PAGE, filled
from bench.zoo.families import DEVELOPMENT, HELD, Family
from bench.zoo.fourth import FOURTH
from bench.zoo.fresh import FRESH
from bench.zoo.parts import PARTS, count
from bench.zoo.rates import share, wilson
from bench.zoo.record import read, write
from bench.zoo.running import pack
from bench.zoo.training import Score
from bench.zoo.truth import decide
from gradscope.findings import Cause
from gradscope.measurements import Role
from tests.support import measured

ALL = (*DEVELOPMENT, *HELD, *FRESH, *FOURTH)
OFFLINE = [f for f in ALL if not f.data.startswith("mnist") or f.data == "mnist1d"]


def family(name: str) -> Family:
    return next(f for f in ALL if f.name == name)


def network(which: Family) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    loaded = data.load(which.data, which.kind, 0)
    net = nets.build(**_config(which, loaded)).eval()
    starts.sane(net, which)
    return net, torch.from_numpy(loaded.x[:64])


def test_models_are_held_out_in_families_of_their_own():
    parts = [{(f.kind, f.activation, f.data) for f in part} for part in PARTS.values()]
    assert not parts[0] & parts[1]
    assert not parts[2] & (parts[0] | parts[1])
    assert not parts[3] & (parts[0] | parts[1] | parts[2])
    older = {f.data for part in ("dev", "held", "fresh") for f in PARTS[part]}
    assert not {f.data for f in FOURTH} & older
    assert len({f.name for f in ALL}) == len(ALL) >= 25
    assert count("held") >= (count("dev") + count("held")) / 3
    assert 300 <= count("fresh") <= 500
    assert len(FRESH) >= 12
    assert len(FOURTH) >= 16
    assert sum(len(f.healthy) for f in FOURTH) >= sum(len(f.faults) for f in FOURTH)
    assert {f.kind for f in HELD} >= {"mlp", "cnn", "lstm", "gru", "rnn", "resmlp", "transformer"}


@pytest.mark.parametrize("which", ALL, ids=lambda f: f.name)
def test_conditions_and_causes_have_names_that_exist(which: Family):
    assert set(which.healthy) <= set(HEALTHY)
    assert set(which.faults) <= set(FAULTS)
    known = {c.value for c in Cause}
    assert all({*FAULTS[c].causes, *FAULTS[c].near} <= known for c in which.faults)


@pytest.mark.parametrize("which", OFFLINE, ids=lambda f: f.name)
def test_every_plant_of_a_family_does_something(which: Family):
    for condition in which.faults:
        unplanted = ("diverged", "overshot", "default", "default-half", "plateaued")
        if condition in unplanted or condition.startswith("inputs"):
            continue
        net, x = network(which)
        before = {n: p.clone() for n, p in net.named_parameters()}
        plants.plant(condition, net, which, x)
        changed = [n for n, p in net.named_parameters() if not torch.equal(p, before[n])]
        assert changed, condition


@pytest.mark.parametrize(
    "name", ["cnn-relu-digits-bn", "resmlp-relu-mnist1d-bn", "resmlp-gelu-cancer-ln"]
)
def test_weights_scaled_under_a_normalisation_keep_the_function(name: str):
    net, x = network(family(name))
    before = net(x)
    plants.plant("scaled-works", net, family(name), x)
    assert torch.allclose(net(x), before, atol=2e-3)


def changed(name: str, condition: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A network, and the same one with a condition planted."""
    net, x = network(family(name))
    after = copy.deepcopy(net)
    plants.plant(condition, after, family(name), x)
    return net, after


def test_weights_of_six_bits_have_63_values_and_stay_near():
    before, after = changed("cnn-relu-textures-bn", "quantised")
    for old, new in zip(starts.hidden(before), starts.hidden(after), strict=True):
        assert len(new.weight.unique()) <= 63
        assert float((new.weight - old.weight).detach().abs().max()) <= (
            float(old.weight.detach().abs().max()) / 62 * 1.001
        )


def test_a_quarter_of_the_units_is_cut():
    _, after = changed("mlp-relu-parity", "units-cut")
    for layer in starts.hidden(after):
        assert int((layer.weight == 0).all(1).sum()) == 8


def test_a_confident_network_answers_the_same():
    before, after = changed("mlp-arctan-cover", "confident")
    x = network(family("mlp-arctan-cover"))[1]
    assert torch.equal(before(x).argmax(1), after(x).argmax(1))
    assert torch.allclose(after(x), 5 * before(x), rtol=1e-4, atol=1e-5)


def test_a_new_head_leaves_everything_else():
    before, after = changed("dropmlp-silu-cover", "new-head")
    assert torch.equal(before[:-1](torch.ones(2, 21)), after[:-1](torch.ones(2, 21)))
    assert not torch.equal(before[-1].weight, after[-1].weight)


def test_closed_gates_are_the_ones_that_are_meant():
    """torch's order: input, forget, cell, output; reset, update, new."""
    _, lstm = changed("lstm-tanh-order", "input-shut")
    assert lstm.rnn.bias_ih_l0.unflatten(0, (4, -1)).mean(1).tolist()[:2] == [-8, 1]
    _, gru = changed("gru-tanh-forecast", "update-shut")
    assert gru.rnn.bias_ih_l0.unflatten(0, (3, -1)).mean(1).tolist() == [0, 8, 0]


def test_brackets_are_nested_where_the_label_says_so():
    found = data.load("brackets", "transformer", 0)

    def nested(row: list[int]) -> bool:
        still = []
        for token in row:
            if token % 2 == 0:
                still.append(token)
            elif not still or still.pop() != token - 1:
                return False
        return not still

    assert [nested(row) for row in found.x_val.tolist()] == found.y_val.astype(bool).tolist()


def test_a_deep_logistic_start_is_centred():
    """As many decades as the same net of 4 (sigma - 1/2), which is 2 tanh(z / 2)."""
    net, x = network(family("mlp-logistic-cancer-deep"))
    assert measured(net, x).ledger.total > -1.5


def test_dead_units_are_dead_and_biases_saturate():
    net, x = network(family("mlp-relu-digits"))
    plants.plant("dead", net, family("mlp-relu-digits"), x)
    assert float(net[:2](x).detach().abs().max()) == 0
    net, x = network(family("cnn-tanh-digits"))
    plants.plant("bias", net, family("cnn-tanh-digits"), x)
    assert measured(net, x).hidden_saturation > 0.9


def test_data_are_seeded_and_do_not_overlap():
    for name in ("digits", "spirals", "adding12", "recall"):
        one, two = (data.load(name, "mlp", 3) for _ in range(2))
        assert np.array_equal(one.x, two.x)
        assert np.array_equal(one.y_val, two.y_val)
        assert not np.array_equal(one.x, data.load(name, "mlp", 4).x)


def test_noise_and_imbalance_are_as_strong_as_they_say():
    digits = data.load("digits", "mlp", 0)
    assert (data.noisy(digits, 0).y != digits.y).mean() == pytest.approx(0.3, abs=0.03)
    assert (data.noisy(digits, 0, 0.4).y != digits.y).mean() == pytest.approx(0.4, abs=0.03)
    assert (data.imbalanced(digits, 0).y == 0).mean() == pytest.approx(0.01, abs=0.002)
    assert (data.imbalanced(digits, 0, 19).y == 0).mean() == pytest.approx(0.05, abs=0.005)


def scored(share_right: float, n: int = 400) -> Score:
    credit = (np.arange(n) < share_right * n).astype(float)
    return Score(credit, np.full(n, 1 / n), 10)


@pytest.mark.parametrize(
    ("saved", "untreated", "twin", "truth"),
    [
        (0.10, 0.20, 0.95, "faulty"),
        (0.10, 0.75, 0.95, "faulty"),  # it learns, but not what it could
        (0.10, 0.94, 0.95, "healthy"),  # it trains to its reference
        (0.94, 0.10, 0.95, "healthy"),  # it works, whatever becomes of it
        (0.10, 0.85, 0.95, "ambiguous"),
        (0.10, 0.20, 0.24, "no-reference"),  # the restart has not learned either
    ],
)
def test_truth(saved: float, untreated: float, twin: float, truth: str):
    assert decide(scored(saved), scored(untreated), scored(twin), 0.1).truth == truth


def test_measurements_come_back_from_their_file(tmp_path):
    net, x = network(family("lstm-tanh-lag20"))
    found = measured(net, x, torch.arange(64) % 4)
    write(found, tmp_path / "m.json")
    again = read(tmp_path / "m.json")
    for field in dataclasses.fields(found):
        assert getattr(again, field.name) == getattr(found, field.name), field.name
    assert isinstance(again.sites[0].role, Role)  # an equal string is not enough for the rules


def test_wilson_agrees_with_published_values():
    """Newcombe 1998, table I: 81 of 263 and 0 of 20."""
    assert wilson(81, 263) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))
    assert wilson(0, 20) == (0.0, pytest.approx(0.1611, abs=1e-4))
    assert share(97, 100).startswith(".970 (97/100; ")


def test_the_page_shows_the_tables_of_the_results():
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page) == page, "run: python bench/calibration.py document"


@pytest.mark.parametrize(
    ("lean", "limit", "archives"),
    [
        (False, 1 << 20, [{"a-0.pt", "a-0.json", "plain-0.npz"}]),
        (False, 1500, [{"a-0.json", "a-0.pt"}, {"plain-0.npz"}]),
        (True, 1500, [{"a-0.json"}]),
    ],
)
def test_archives_hold_what_is_finished(tmp_path, lean: bool, limit: int, archives: list[set[str]]):
    folder = tmp_path / "fresh" / "family"
    folder.mkdir(parents=True)
    for name in ("a-0.pt", "a-0.json", "plain-0.npz", "plain-0-bare.npz", "b-0.1234", "c.partial"):
        (folder / name).write_bytes(b"x" * 1000)
    parts = pack(tmp_path / "fresh", tmp_path / "out", "zoo", lean=lean, limit=limit)
    held = []
    for part in parts:
        with tarfile.open(part) as archive:
            held.append({name.rpartition("/")[2] for name in archive.getnames()})
    assert held == archives
