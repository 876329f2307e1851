"""Laws: batches add up, draws add up, the same seed gives the same numbers."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradscope.measurements import Measurements
from gradscope.probe import stats
from gradscope.probe.cotangents import unit_cotangent
from gradscope.probe.histogram import BitHistogram
from gradscope.probe.layout import BatchLayout, from_support
from gradscope.probe.losses import Score
from gradscope.probe.stats import ForwardStats, Moments, PerSample, variance_ratios
from gradscope.probe.weights import weight_stats
from tests.probe.cases import CASES
from tests.support import measured

BY_NAME = {c.name: c for c in CASES}
few = settings(max_examples=25, deadline=None)


def numbers(value: object, path: str = "") -> dict[str, object]:
    """Every number of a measurement, by where it stands."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    elif isinstance(value, tuple | list):
        pairs = [(str(i), v) for i, v in enumerate(value)]
    elif isinstance(value, dict):
        pairs = [(str(k), v) for k, v in value.items()]
    else:
        return {path: value}
    found: dict[str, object] = {}
    for name, item in pairs:
        found.update(numbers(item, f"{path}.{name}"))
    return found


def assert_same(one: Measurements, two: Measurements, ignore: tuple[str, ...] = ()) -> None:
    left, right = numbers(one), numbers(two)
    assert left.keys() == right.keys()
    for path, value in left.items():
        if any(part in path for part in ignore):
            continue
        if isinstance(value, float) and isinstance(right[path], float):
            assert right[path] == pytest.approx(value, rel=1e-8, abs=1e-12), path
        else:
            assert right[path] == value, path


@few
@given(
    name=st.sampled_from(["chain-tanh", "conv", "norms", "residual", "lstm", "embedding"]),
    size=st.integers(1, 7),
)
def test_chunks_equal_the_whole(name: str, size: int):
    torch.manual_seed(0)
    module = BY_NAME[name].module().double().eval()
    x = BY_NAME[name].x()
    y = torch.arange(7) % 3
    whole, chunked = measured(module, x, y), measured(module, x, y, batch_size=size)
    assert_same(whole, chunked, ignore=(".run.", ".cuts", ".heads.0.shape"))


def test_gradients_of_one_draw_are_looked_at_as_they_arrive_or_once_all_batches_are_over():
    torch.manual_seed(0)
    module, x = BY_NAME["chain-tanh"].module().double().eval(), BY_NAME["chain-tanh"].x()
    whole, chunked = measured(module, x, draws=1), measured(module, x, draws=1, batch_size=2)
    assert_same(whole, chunked, ignore=(".run.", ".cuts", ".heads.0.shape"))
    assert all(p.gradient.norm > 0 for p in whole.parameters)


def test_one_sweep_a_draw_equals_one_sweep_for_all(tmp_path):
    torch.manual_seed(0)
    module, x = BY_NAME["conv"].module().double().eval(), BY_NAME["conv"].x()
    together = measured(module, x)
    apart = measured(module, x, save_gradients=str(tmp_path / "g.safetensors"))
    assert_same(together, apart, ignore=(".run.",))


def test_saved_gradients_are_means_over_the_draws(tmp_path):
    from safetensors.torch import load_file

    from tests import reference

    torch.manual_seed(0)
    case = BY_NAME["chain-tanh"]
    module, x, y = case.module().double().eval(), case.x(), torch.arange(7) % 3
    path = tmp_path / "g.safetensors"
    measured(module, x, y, save_gradients=str(path), draws=3)
    saved = load_file(path)
    expected = torch.zeros_like(module.out.weight)
    for draw in range(3):
        tape = reference.Tape()
        out = case.twin(module)(x, tape)
        v = unit_cotangent((7, 3), BatchLayout(0), seed=0, head=0, draw=draw, start=0, samples=7)
        (g,) = torch.autograd.grad((out * v).sum(), module.out.weight)
        expected += g.abs() / 3
    torch.testing.assert_close(saved["probe/out.weight"], expected.detach() / math.sqrt(7))
    loss = torch.nn.functional.cross_entropy(module(x), y)
    (g,) = torch.autograd.grad(loss, module.out.weight)
    torch.testing.assert_close(saved["loss/out.weight"], g.abs())


def test_the_same_seed_gives_the_same_measurements():
    torch.manual_seed(0)
    module, x = BY_NAME["lstm"].module(), BY_NAME["lstm"].x().float()
    assert measured(module, x) == measured(module, x)
    assert measured(module, x) != measured(module, x, seed=1)


@few
@given(start=st.integers(0, 200), first=st.integers(1, 90), rest=st.integers(1, 90))
def test_cotangents_do_not_know_of_batches(start: int, first: int, rest: int):
    def rows(at: int, n: int) -> torch.Tensor:
        return unit_cotangent((n, 3), BatchLayout(0), seed=5, head=1, draw=2, start=at, samples=n)

    whole = rows(start, first + rest)
    assert torch.equal(whole, torch.cat([rows(start, first), rows(start + first, rest)]))
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(first + rest))


floats = st.floats(-1e3, 1e3, allow_nan=False, width=32)
tables = st.lists(st.lists(floats, min_size=3, max_size=3), min_size=1, max_size=6)


@few
@given(tables, tables, tables)
def test_moments_merge_in_any_order(a, b, c):
    one, two, three = (Moments.of(torch.tensor(t, dtype=torch.float64)) for t in (a, b, c))
    left, right = one.merge(two).merge(three), one.merge(two.merge(three))
    rows = torch.tensor([*a, *b, *c], dtype=torch.float64)
    for merged in (left, right, Moments().merge(left), left.merge(Moments())):
        assert merged.count == len(rows)
        torch.testing.assert_close(merged.mean, rows.mean(0))
        torch.testing.assert_close(merged.m2 / len(rows), rows.var(0, correction=0))
    assert variance_ratios([ForwardStats(moments=(Moments(),))]) == [None]


def test_an_empty_statistic_is_neutral_and_not_zero():
    some = ForwardStats(numel=3, per_unit=3, relative=torch.tensor(2.0))
    assert ForwardStats().merge(some) == some
    assert some.merge(ForwardStats()) == some
    assert variance_ratios([ForwardStats()]) == [None]
    assert PerSample().whole().numel() == 0


@few
@given(st.lists(st.floats(allow_nan=True, width=32), min_size=1, max_size=60), st.integers(0, 60))
def test_histograms_merge_and_bound_their_error(values: list[float], cut: int):
    tensor = torch.tensor(values, dtype=torch.float32)
    whole = BitHistogram.of(tensor)
    merged = BitHistogram.of(tensor[:cut]).merge(BitHistogram.of(tensor[cut:]))
    assert (whole.counts == merged.counts).all()
    assert whole.zeros == merged.zeros == int((tensor == 0).sum())
    assert whole.nonfinite == int((~torch.isfinite(tensor)).sum())
    tiny = torch.finfo(torch.float32).tiny
    small = (tensor.abs() < tiny) & (tensor != 0)
    assert whole.subnormal == int(small.sum())
    normal = tensor[torch.isfinite(tensor) & ~small].abs()
    if len(normal) and not small.any():
        exact = normal.sort().values[int(0.5 * (len(normal) - 1))]
        assert whole.quantiles()["q50"] == pytest.approx(float(exact), rel=0.0625)


@few
@given(st.lists(st.floats(allow_nan=True, width=32), min_size=1, max_size=60), st.booleans())
def test_octaves_hold_every_finite_magnitude(values: list[float], double: bool):
    tensor = torch.tensor(values, dtype=torch.float64 if double else torch.float32)
    octaves = BitHistogram.of(tensor).octaves()
    sizes = tensor[torch.isfinite(tensor) & (tensor != 0)].abs().tolist()
    if not sizes:
        assert octaves is None
        return
    assert sum(octaves.counts) == len(sizes)
    assert octaves.counts[-1] > 0
    assert len(octaves.counts) <= 64
    for i, counted in list(enumerate(octaves.counts))[1:]:
        low = 2.0 ** (octaves.lowest + i)
        assert counted == sum(low <= size < 2 * low for size in sizes)


@few
@given(st.lists(st.floats(allow_nan=True), min_size=1, max_size=60))
def test_a_histogram_of_weights_holds_every_finite_one(values: list[float]):
    tensor = torch.tensor(values, dtype=torch.float64)
    finite = tensor[torch.isfinite(tensor)]
    found = weight_stats(tensor, None, 1.0).histogram
    if not len(finite):
        assert found is None
        return
    assert (found.low, found.high) == (float(finite.min()), float(finite.max()))
    assert sum(found.counts) == len(finite)
    assert len(found.counts) == (48 if found.low < found.high else 1)
    if found.low < found.high:
        assert found.counts[0] >= int((finite == found.low).sum())
        assert found.counts[-1] >= int((finite == found.high).sum())


@few
@given(
    n=st.integers(2, 5),
    shape=st.sampled_from([("n", 4), (3, "n", 2), ("nT", 2), ("Tn", 2), (2, "n"), ("n",)]),
)
def test_the_batch_axis_is_found_by_the_cotangent_test(n: int, shape):
    steps = 3
    sizes = [{"n": n, "nT": n * steps, "Tn": n * steps}.get(s, s) for s in shape]
    axis = next(i for i, s in enumerate(shape) if isinstance(s, str))
    kind = shape[axis]
    inner, outer = (steps if kind == "nT" else 1), (steps if kind == "Tn" else 1)
    layout = BatchLayout(axis, outer, inner)
    rows = torch.zeros(n, int(torch.Size(sizes).numel()) // n)
    rows[1] = 1.0
    gradient = layout.arrange(rows, tuple(sizes), n)
    found, known = from_support(gradient, n, 1)
    assert known
    assert found is not None
    assert torch.equal(found.rows(gradient, n), rows)
    assert from_support(torch.ones(sizes), n, 1) == (None, True)
    assert from_support(torch.zeros(sizes), n, 1) == (None, False)


@few
@given(st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_of_many_samples_evenly_spread_ones_are_kept(sizes: list[int]):
    """However the batches are cut, the same ones; all of them as long as they are few."""
    rows = torch.arange(float(sum(sizes))).unsqueeze(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stats, "KEPT", 8)
        merged = PerSample()
        for piece in rows.split(sizes):
            merged = merged.merge(PerSample((piece,)))
        whole = merged.whole().flatten()
    assert merged.samples == len(rows)
    if len(sizes) > 1:  # one batch is in memory anyway
        assert len(whole) <= 8
    assert torch.equal(whole, rows[:: merged.stride].flatten())
    assert merged.stride == 1 or len(rows) * 2 // merged.stride >= 8


def test_what_is_measured_of_a_thinned_sample(monkeypatch):
    """A ledger over every 4th sample is near the one over all, and the report says so."""
    torch.manual_seed(0)
    layers = [m for _ in range(3) for m in (torch.nn.Linear(6, 6), torch.nn.Tanh())]
    module = torch.nn.Sequential(*layers)
    x = torch.randn(512, 6)
    exact = measured(module, x, batch_size=64)
    monkeypatch.setattr(stats, "KEPT", 128)
    thinned = measured(module, x, batch_size=64)
    assert "medians and the ledger are over every 4th sample" in thinned.sample.notes
    assert exact.sample.notes == ()
    assert thinned.ledger is not None
    assert exact.ledger is not None
    assert abs(thinned.ledger.total - exact.ledger.total) < 0.05
    assert thinned.parameters == exact.parameters


@few
@given(st.lists(st.integers(1, 9), min_size=1, max_size=40))
def test_scores_merge_into_few_pieces(sizes: list[int]):
    """In order, and no more pieces than a binary number has digits."""
    numbers_ = torch.arange(float(sum(sizes)), dtype=torch.float64)
    whole = Score()
    for piece in numbers_.split(sizes):
        whole = whole.merge(Score((piece,), 1, len(piece), (piece.long(),)))
    assert torch.equal(torch.cat(whole.losses), numbers_)
    assert torch.equal(torch.cat(whole.labels), numbers_.long())
    assert (whole.right, whole.answers) == (len(sizes), len(numbers_))
    lengths = [len(piece) for piece in whole.losses]
    assert lengths == sorted(lengths, reverse=True)
    assert len(set(lengths)) == len(lengths)


def test_counts_of_other_units_keep_their_sum():
    """Calls of one site that lie on other axes: a share of all elements, and no single units."""
    one = ForwardStats(6, 2, torch.tensor([1, 2, 0]))
    other = ForwardStats(6, 3, torch.tensor([3, 1]))
    for both in (ForwardStats.over_calls([one, other]), one.merge(other)):
        assert both.numel == 12
        assert both.saturated.dim() == 0
        assert int(both.saturated) == 7
