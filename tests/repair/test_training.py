"""Training against loops written by hand: optimisers, penalties, clipping, places in the data."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gradscope.config import FixSettings, Settings
from gradscope.findings import Cause
from gradscope.progress import Silent
from gradscope.repair import compare
from gradscope.repair.checkpoints import Keeper
from gradscope.repair.loop import Trained, train
from gradscope.repair.minibatches import Minibatches, Place
from gradscope.repair.naming import check_globs, is_named
from gradscope.repair.recipe import Penalty, Recipe, recipe_for
from gradscope.repair.training import Scored, Trainee
from tests.support import sample_of

STEPS, BATCH, RATE = 7, 8, 1e-2


def problem() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    return module, torch.randn(30, 5), torch.randint(0, 3, (30,))


def minibatches(x: torch.Tensor, y: torch.Tensor, rows: int | None = None) -> Minibatches:
    held = sample_of(x[:10], y[:10])
    return Minibatches(sample_of(x, y, rows), held, size=BATCH, seed=0, exact=False)


def trainee(module: nn.Module) -> Trainee:
    return Trainee(
        module, list(module.parameters()), lambda: None, module.train, "cross-entropy", None, (),
        torch.device("cpu"),
    )  # fmt: skip


def trained(recipe: Recipe, **options) -> dict[str, torch.Tensor]:
    module, x, y = problem()
    train(trainee(module), minibatches(x, y), recipe, Silent(), **options)
    return module.state_dict()


def by_hand(recipe: Recipe) -> dict[str, torch.Tensor]:
    """The same, with every formula written out, in the order in which batches come."""
    module, x, y = problem()
    parameters = list(module.parameters())
    kind, strength = recipe.penalty.kind, recipe.penalty.strength
    optimiser = {
        "adam": lambda: torch.optim.Adam(parameters, lr=RATE),
        "adamw": lambda: torch.optim.AdamW(
            parameters, lr=RATE, weight_decay=strength if kind == "adamw" else 0
        ),
        "sgd": lambda: torch.optim.SGD(parameters, lr=RATE, momentum=0.9),
    }[recipe.optimizer]()
    stream = minibatches(x, y).training()
    for _ in range(recipe.steps):
        batch = next(stream)
        loss = nn.functional.cross_entropy(module(batch.args[0]), batch.labels)
        if kind == "l2":
            loss = loss + strength * sum((p**2).sum() for p in parameters)
        if kind == "l1":
            loss = loss + strength * sum(p.abs().sum() for p in parameters)
        optimiser.zero_grad()
        loss.backward()
        if recipe.clip:
            norm = math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in parameters))
            for p in parameters:
                p.grad *= min(1.0, recipe.clip / norm)
        optimiser.step()
        with torch.no_grad():
            for weight in (module[0].weight, module[2].weight):
                if kind == "max-norm":
                    for row in weight:
                        row *= min(1.0, strength / float(row.norm()))
                if kind == "spectral":
                    weight *= min(1.0, strength / float(torch.linalg.svdvals(weight)[0]))
    return module.state_dict()


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize(
    ("optimizer", "kind", "strength"),
    [
        *((optimizer, "none", 0.0) for optimizer in ("adam", "adamw", "sgd")),
        ("adam", "l2", 0.1),
        ("sgd", "l2", 0.1),
        ("adam", "l1", 0.1),
        ("sgd", "l1", 0.1),
        ("adamw", "adamw", 0.5),
        ("adam", "max-norm", 0.5),
        ("adam", "spectral", 0.5),
    ],
)
def test_as_by_hand(optimizer: str, kind: str, strength: float, clip: float | None):
    recipe = Recipe(STEPS, RATE, BATCH, clip, optimizer, Penalty(kind, strength))
    found, expected = trained(recipe), by_hand(recipe)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


def test_they_differ_from_one_another():
    """Or the test above would see nothing."""
    plain = Recipe(STEPS, RATE, BATCH, None)
    others = [
        *(replace(plain, penalty=Penalty(k, 0.5)) for k in ("l2", "l1", "max-norm", "spectral")),
        replace(plain, optimizer="adamw", penalty=Penalty("adamw", 0.5)),
        replace(plain, optimizer="sgd"),
    ]
    weights = [trained(recipe)["0.weight"] for recipe in (plain, *others)]
    for i, one in enumerate(weights):
        assert not any(torch.allclose(one, other, atol=1e-5) for other in weights[:i])


def test_a_limit_holds_for_weights_in_any_layout():
    weight = nn.Parameter(torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last))
    Penalty("max-norm", 0.25).project([weight])
    assert weight.detach().flatten(1).norm(dim=1).tolist() == pytest.approx([0.25] * 4)


def test_patience_counts_scores():
    module, x, y = problem()
    recipe = Recipe(100, 0.0, BATCH, None, every=2, patience=3)
    found = train(trainee(module), minibatches(x, y), recipe, Silent())
    assert found.stopped == "no better score since step 0"
    assert [step for step, _ in found.moments] == [0, 2, 4, 6]


FALLING = Recipe(10, 1e-3, BATCH, None, every=2, patience=3, beyond=30)
"""So slow that each score is a little better, or none is."""


def with_scores(recipe: Recipe, losses: Callable[[int], float]) -> Trained:
    """A training whose scores are these losses and no right answer ever."""
    module, x, y = problem()
    one, scored = trainee(module), itertools.count()

    def score(batches: object) -> Scored:
        return Scored(torch.zeros(4), torch.full((4,), losses(next(scored))))

    one.score = score
    return train(one, minibatches(x, y), recipe, Silent())


@pytest.mark.parametrize(
    ("losses", "falling", "last", "stopped"),
    [
        # .1 in three scores, and .09 is asked for: to the end, and as far as it may go beyond.
        (
            lambda i: 2 - 0.1 * i / 3,
            0.09,
            40,
            "prolonged from 10 steps while the held-out loss fell",
        ),
        (lambda i: 2 - 0.1 * i / 3, 0.11, 10, None),  # too slow to be prolonged
        (lambda i: 2 - 0.1 * i / 3, math.inf, 10, None),
        (
            lambda i: max(2 - 0.1 * i / 3, 1.7),
            0.09,
            20,
            "prolonged from 10 steps while the held-out loss fell",
        ),  # as long as it falls
        (lambda i: 2.0, 0.09, 6, "no better score since step 0"),
    ],
)
def test_it_goes_on_while_the_loss_falls(losses, falling, last, stopped):
    found = with_scores(replace(FALLING, falling=falling), losses)
    assert found.moments[-1][0] == last
    assert found.stopped == stopped


def test_patience_waits_while_the_loss_falls():
    """Answers that stand still, or got worse once, are no reason to end."""
    module, x, y = problem()

    def ended(falling: float) -> str | None:
        one, scored = trainee(module), itertools.count()

        def score(batches: object) -> Scored:
            i = next(scored)
            return Scored(torch.full((4,), float(i == 1)), torch.full((4,), 2 - 0.1 * i))

        one.score = score
        recipe = replace(FALLING, steps=40, beyond=0, falling=falling)
        return train(one, minibatches(x, y), recipe, Silent()).stopped

    assert ended(math.inf) == "no better score since step 2"
    assert ended(0.2) is None


@pytest.mark.parametrize(("given", "beyond"), [({}, 3), ({"epochs": 40}, 0), ({"patience": 0}, 0)])
def test_steps_that_were_asked_for_are_kept_to(given, beyond):
    before = SimpleNamespace(
        measurements=SimpleNamespace(ledger=None), diagnosis=SimpleNamespace(causes=())
    )
    _, x, y = problem()
    one = recipe_for(before, sample_of(x, y), True, FixSettings(**given), None)
    assert one.beyond == beyond * one.steps


@pytest.mark.parametrize(
    ("labels", "loss", "expected"),
    [
        (torch.tensor([0, 1, 2, 2]), "cross-entropy", 1.0397),  # .25, .25, .5
        (torch.tensor([1, 1, 1, 1]), "cross-entropy", math.inf),
        (torch.tensor([[0.0], [2.0], [0.0], [2.0]]), "mse", 1.0),
    ],
)
def test_what_a_guess_loses(labels, loss, expected):
    module = nn.Linear(5, 3 if loss != "mse" else 1)
    one = replace(trainee(module), loss_name=loss)
    data = Minibatches(sample_of(torch.randn(4, 5), labels), sample_of(torch.randn(4, 5), labels),
                       size=4, seed=0, exact=False)  # fmt: skip
    one.score(data.held_out())
    scale = compare.scale_of(one, data)
    assert compare.loss_of_a_guess(scale, one, data) == pytest.approx(expected, abs=1e-4)


def test_the_best_state_is_kept_and_not_the_last():
    module, x, y = problem()
    recipe = Recipe(20, 3.0, BATCH, None, "sgd", every=1)
    found = train(trainee(module), minibatches(x, y), recipe, Silent())
    assert found.best_step < 20
    best = trained(replace(recipe, steps=found.best_step))
    assert all(torch.equal(found.best[n], best[n]) for n in best)


class Sharp(nn.Module):
    """Its square root has no slope at nought: the gradient is infinite there."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - x.detach()).abs().sqrt() + x


class Log(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.log()


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (Log(), "the loss is nan at step 1, first in log after '2.weight'"),
        (Sharp(), "the gradient is not finite at step 1, first (backwards) at '2.bias'"),
    ],
)
def test_the_first_bad_layer_is_named(layer: nn.Module, said: str):
    module, x, y = problem()
    module = nn.Sequential(*module, layer, nn.Linear(3, 3))
    before = copy.deepcopy(module.state_dict())
    found = train(trainee(module), minibatches(x, y), Recipe(5, RATE, BATCH, None), Silent())
    assert found.stopped == said
    assert all(torch.equal(v, before[n]) for n, v in module.state_dict().items())


@pytest.mark.parametrize("rows", [None, 7])
@pytest.mark.parametrize("taken", [0, 1, 3, 4, 5, 9])
def test_batches_go_on_where_they_were(rows: int | None, taken: int):
    _, x, y = problem()
    data = minibatches(x, y, rows)
    whole = data.training()
    for _ in range(taken):
        next(whole)
    part = data.training(whole.place)
    for _ in range(6):
        one, other = next(whole), next(part)
        assert torch.equal(one.args[0], other.args[0])
        assert torch.equal(one.labels, other.labels)
        assert whole.place == part.place


def test_an_epoch_has_every_sample_once():
    _, x, y = problem()
    stream = minibatches(x, y).training()
    seen = torch.cat([next(stream).args[0] for _ in range(4)])
    assert sorted(seen[:, 0].tolist()) == sorted(x[:, 0].tolist())
    assert stream.place == Place(0, 0, 32)
    next(stream)
    assert stream.place == Place(1, 0, 8)


def test_what_is_drawn_goes_on_where_it_was(tmp_path):
    """torch's generator, Python's and numpy's, and an optimiser with momentum."""
    recipe = Recipe(9, RATE, BATCH, None, "sgd", every=2)
    whole = trained(recipe)
    keeper = Keeper(tmp_path / "kept.pt", "a")
    trained(replace(recipe, steps=4), keeper=keeper)
    state = keeper.load()
    assert state is not None
    keeper.save({**state, "done": False})
    assert Keeper(tmp_path / "kept.pt", "another").load() is None
    found = trained(recipe, keeper=keeper)
    assert all(torch.equal(found[n], whole[n]) for n in whole)


@pytest.mark.parametrize(
    ("glob", "named"),
    [("0.weight", True), ("0", True), ("0.*", True), ("*", True), ("1", False), ("weight", False)],
)
def test_globs_name_parameters_and_layers(glob: str, named: bool):
    assert is_named("0.weight", (glob,)) is named
    if not named:
        with pytest.raises(Exception, match=r"The nearest parameter is '0\.weight'"):
            check_globs("--freeze", (glob,), ["0.weight"])


@pytest.mark.parametrize(
    ("layers", "causes", "time", "rate", "clip"),
    [
        (3, (), (), 1e-3, None),
        (29, (), (), 1e-3, None),
        (30, (), (), 3e-4, None),
        (3, (Cause.EXPLODING,), (), 1e-3, 1.0),
        (3, (), ("a step",), 1e-3, 1.0),
    ],
)
def test_rate_and_clipping_follow_the_ledger(layers, causes, time, rate, clip):
    ledger = SimpleNamespace(entries=[None] * layers, time=time)
    before = SimpleNamespace(
        measurements=SimpleNamespace(ledger=ledger), diagnosis=SimpleNamespace(causes=causes)
    )
    _, x, y = problem()
    fix = FixSettings(epochs=2, batch_size=10)
    found = recipe_for(before, sample_of(x, y), True, fix, None)
    assert (found.rate, found.clip) == (rate, clip)
    asked = replace(fix, rate=0.5)
    found = recipe_for(before, sample_of(x, y), True, asked, None)
    assert found.rate == 0.5


@pytest.mark.parametrize(
    ("batch", "epochs", "steps", "an_epoch"),
    [(1, None, 40 * 30, 30), (10, None, 40 * 25, 25), (10, 2, 2 * 3, 3), (100, 2, 2, 1)],
)
def test_few_samples_are_trained_on_for_as_many_steps(batch, epochs, steps, an_epoch):
    """By default one pass, or 25 steps where that is more; what is asked for are passes."""
    before = SimpleNamespace(
        measurements=SimpleNamespace(ledger=None), diagnosis=SimpleNamespace(causes=())
    )
    _, x, y = problem()
    assert len(x) == 30
    fix = FixSettings(epochs=epochs, batch_size=batch)
    found = recipe_for(before, sample_of(x, y), True, fix, None)
    assert (found.steps, found.every) == (steps, an_epoch)


@pytest.mark.parametrize("freeze", [(), ("1",)])
def test_frozen_norms_keep_their_statistics(freeze):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    _, x, y = problem()
    before = module[1].running_mean.clone()
    frozen = compare.trainee_of(
        module, [module[0].weight], SimpleNamespace(heads=()), Settings("m"), torch.device("cpu"),
        freeze,
    )  # fmt: skip
    found = train(frozen, minibatches(x, y), Recipe(4, RATE, BATCH, None), Silent())
    assert torch.equal(found.best["1.running_mean"], before) is bool(freeze)


@pytest.mark.parametrize(
    ("losses", "ceiling", "ends"),
    [
        ((1.0, 1.0, 1.0, 1.0), -math.inf, True),  # nothing is said of a ceiling
        ((1.0, 1.0, 1.0, 1.0), 0.9, False),  # a plateau on the way
        ((1.0, 0.9, 0.8, 0.7), 0.9, False),  # it learns, and the score does not show it yet
        ((1.0, 1.2, 1.5, 2.0), 0.9, True),  # it unlearns
        ((1.0, 1.0, 1.0, math.nan), 0.9, True),
        ((1.0, 1.0, 1.0, 1.0), 0.5, True),  # nothing is left to gain
    ],
)
def test_patience_is_not_lost_on_a_plateau(monkeypatch, losses, ceiling, ends):
    module, x, y = problem()
    scores = iter(losses)

    def score(self, batches):
        loss = torch.full((50,), next(scores, losses[-1])) + torch.linspace(0, 0.01, 50)
        return Scored(torch.full((50,), 0.6), loss)

    monkeypatch.setattr(Trainee, "score", score)
    recipe = Recipe(12, 0.0, BATCH, None, every=2, patience=3, ceiling=ceiling)
    found = train(trainee(module), minibatches(x, y), recipe, Silent())
    assert (found.stopped is not None) == ends
