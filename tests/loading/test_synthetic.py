"""Without data: an input on which the model runs, whatever its first layers are."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from gradscope.config import DataSettings
from gradscope.errors import DataError, GradscopeError, OptionError
from gradscope.loading import load_sample
from gradscope.loading.families import Spec, first_specs
from gradscope.loading.search import RUNS
from gradscope.model import Input, LoadedModel, Sample
from tests.loading.test_binding import Masked, Pair, Positional, Translate, Wrapper


def made(module: nn.Module, *, inputs=None, batch=None, **settings) -> Sample:
    model = LoadedModel("m", "PyTorch module", module, inputs=inputs, batch=batch)
    return load_sample(model, DataSettings(**settings))


class Rebuilt(nn.Module):
    """Layers after one another, in ways of its own."""

    def __init__(self, *layers: nn.Module, forward=None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.how = forward

    def forward(self, x):
        if self.how is not None:
            return self.how(self, x)
        for layer in self.layers:
            x = layer(x)
            x = x[0] if isinstance(x, tuple) else x
        return x


class Positions(nn.Module):
    """Learnt positions: one length only."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(50, 8), nn.Linear(8, 3)
        self.positions = nn.Parameter(torch.zeros(6, 8))

    def forward(self, tokens):
        return self.out(self.table(tokens) + self.positions)


class Columns(nn.Module):
    """A table of categories, each with an embedding of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(30, 4), nn.Embedding(3, 4), nn.Embedding(7, 4)])

    def forward(self, x):
        return sum(table(x[:, i]) for i, table in enumerate(self.tables))


class Bert(nn.Module):
    """Tokens, positions and a mask that is required."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(100, 8), nn.Embedding(32, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder, self.out = nn.TransformerEncoder(layer, 2), nn.Linear(8, 2)

    def forward(self, input_ids, attention_mask):
        places = torch.arange(input_ids.shape[1])
        h = self.words(input_ids) + self.places(places)
        return self.out(self.encoder(h, src_key_padding_mask=attention_mask == 0)[:, 0])


class Lengths(nn.Module):
    """Packs its sequences itself."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(5, 4, batch_first=True)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=False
        )
        return self.rnn(packed)[1][0]


class Appended(nn.Module):
    """An image and numbers that join it late."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 4, 3), nn.Linear(4 + 5, 2)

    def forward(self, image, metadata):
        h = torch.relu(self.conv(image)).mean((2, 3))
        return self.out(torch.cat([h, metadata], 1))


class Matrices(nn.Module):
    """No layer at all."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(7, 3))

    def forward(self, x):
        return torch.tanh(x @ self.w)


def flat(side: int, *, padding: int = 0) -> nn.Module:
    """Images of ``side`` or one pixel beside it: the pooling rounds down."""
    conv = nn.Conv2d(1, 4, 3, padding=padding)
    after = (side + 2 * padding - 2) // 2
    return nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * after**2, 2))


def scripted(module: nn.Module, *example: torch.Tensor) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates what people's files still hold
        return torch.jit.trace(module, example) if example else torch.jit.script(module)


@pytest.mark.parametrize(
    ("module", "shapes"),
    [
        (nn.Linear(5, 2), {"input": (5,)}),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), {"input": (784,)}),
        (nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 2, 3)), {"input": (64,)}),
        (nn.Conv1d(4, 2, 3), {"input": (4, 128)}),
        (nn.Conv2d(3, 2, 3), {"input": (3, 32, 32)}),
        (nn.Conv2d(4, 4, 3, groups=2), {"input": (4, 32, 32)}),
        (nn.Conv3d(1, 2, 3), {"input": (1, 16, 32, 32)}),
        (nn.ConvTranspose2d(3, 2, 3), {"input": (3, 32, 32)}),
        (flat(28), {"input": (1, 28, 28)}),
        (flat(50), {"input": (1, 51, 51)}),
        (flat(77, padding=1), {"input": (1, 76, 76)}),
        (nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2)), {"input": (6,)}),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3)), {"input": (3, 32, 32)}),
        (nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 2)), {"input": (16, 6)}),
        (nn.LSTM(5, 3, batch_first=True), {"input": (16, 5)}),
        (Rebuilt(nn.GRU(5, 3, batch_first=True), nn.Linear(3, 2)), {"input": (16, 5)}),
        (nn.GRUCell(5, 3), {"input": (5,)}),
        (Rebuilt(nn.RNN(5, 4, batch_first=True), nn.Flatten(), nn.Linear(40, 2)),
         {"input": (10, 5)}),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), {"input": (16, 8)}),
        (nn.Transformer(8, 2, 1, 1, 16, batch_first=True), {"src": (16, 8), "tgt": (16, 8)}),
        (nn.Embedding(9, 4), {"input": (16,)}),
        (nn.EmbeddingBag(9, 4), {"input": (16,)}),
        (Positions(), {"input": (6,)}),
        (Columns(), {"input": (16,)}),
        (Masked(), {"input": (16,)}),
        (Bert(), {"input_ids": (16,), "attention_mask": (16,)}),
        (Translate(), {"src": (16,), "target": (16,)}),
        (Pair(), {"image": (1, 32, 32), "metadata": (5,)}),
        (Wrapper(Pair()), {"image": (1, 32, 32), "metadata": (5,)}),
        (Positional(Pair()), {"image": (1, 32, 32), "metadata": (5,)}),
        (Appended(), {"image": (3, 32, 32), "metadata": (5,)}),
        (Lengths(), {"x": (16, 5), "lengths": ()}),
        (nn.Sequential(parametrizations.weight_norm(nn.Linear(10, 4))), {"input": (10,)}),
        (nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3))), {"input": (3, 32, 32)}),
        (nn.Bilinear(3, 5, 2), {"input1": (3,), "input2": (5,)}),
        (Matrices(), {"input": (7,)}),
        (Rebuilt(nn.Linear(6, 3), forward=lambda self, x: self.layers[0](x.flatten(1) * 2)),
         {"input": (6,)}),
        (scripted(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())), {"input": (3, 32, 32)}),
        (scripted(nn.Sequential(nn.Linear(5, 2))), {"input": (5,)}),
        (scripted(Pair()), {"image": (1, 32, 32), "metadata": (5,)}),
        (scripted(nn.Sequential(nn.Embedding(9, 4)), torch.ones(2, 3).long()),
         {"input": (16,)}),
    ],
)  # fmt: skip
def test_an_input_is_found(module, shapes):
    sample = made(module)
    assert dict(sample.inputs) == shapes
    assert sample.synthetic
    assert sample.samples == 64
    assert sample.notes[0].startswith("synthesised input")
    for batch in sample.batches():
        module.eval()(*batch.args, **batch.kwargs)


def test_integers_stay_within_every_table():
    [batch] = made(Columns()).batches()
    assert int(batch.args[0].max()) == 2  # the smallest table has 3
    [batch] = made(Bert()).batches()
    assert int(batch.kwargs["input_ids"].max()) > 32
    assert bool((batch.kwargs["attention_mask"] == 1).all())


def test_the_same_seed_the_same_input_and_the_models_dtype():
    one, two = (next(iter(made(nn.Linear(5, 2).double(), seed=3).batches())) for _ in range(2))
    assert one.args[0].dtype is torch.float64
    assert torch.equal(one.args[0], two.args[0])
    other = next(iter(made(nn.Linear(5, 2).double(), seed=4).batches()))
    assert not torch.equal(one.args[0], other.args[0])


@pytest.mark.parametrize(
    ("inputs", "module", "shapes"),
    [
        ((Input("x", (None, 5), torch.float64),), nn.Linear(5, 2).double(), {"input": (5,)}),
        ((Input("t", (None, None), torch.int32),), nn.Embedding(9, 4), {"input": (16,)}),
        ((Input("image", (None, 1, None, None)), Input("metadata", (None, 5))), Pair(),
         {"image": (1, 32, 32), "metadata": (5,)}),
        ((Input("input_ids", (None, None), torch.int64),
          Input("attention_mask", (None, None), torch.int64)), Bert(),
         {"input_ids": (16,), "attention_mask": (16,)}),
    ],
)  # fmt: skip
def test_what_a_model_declares_is_made(inputs, module, shapes):
    sample = made(module, inputs=inputs)
    assert dict(sample.inputs) == shapes
    [batch] = sample.batches()
    assert not batch.kwargs
    for tensor, wanted in zip(batch.args, inputs, strict=True):
        assert wanted.dtype in (None, tensor.dtype)


def test_a_fixed_batch():
    class Four(nn.Linear):
        def forward(self, x):
            assert len(x) == 4
            return super().forward(x)

    sample = made(Four(5, 2), batch=4, samples=10)
    assert [b.size for b in sample.batches()] == [4, 4]


@pytest.mark.parametrize(
    ("module", "given", "shapes", "note"),
    [
        (nn.Conv2d(3, 2, 3), {"": (3, 20, 24)}, {"input": (3, 20, 24)}, None),
        (nn.Conv2d(3, 2, 3), {"": (1, 3, 20, 24)}, {"input": (3, 20, 24)},
         "1x3x20x24: the first number was taken as the axis of the samples"),
        (nn.Conv2d(1, 2, 3), {"": (1, 28, 28)}, {"input": (1, 28, 28)}, None),
        (nn.Conv2d(1, 2, 3), {"input": (1, 28, 28)}, {"input": (1, 28, 28)}, None),
        (Pair(), {"image": (1, 9, 9)}, {"image": (1, 9, 9), "metadata": (5,)}, None),
        (Pair(), {"image": (1, 1, 9, 9), "metadata": (1, 5)},
         {"image": (1, 9, 9), "metadata": (5,)}, "1x1x9x9, 1x5: the first number"),
        (Masked(), {"input_ids": (7,)}, {"input": (7,)}, None),
        (Masked(), {"input_ids": (7,), "attention_mask": (7,)},
         {"input_ids": (7,), "attention_mask": (7,)}, None),
        (nn.LSTM(5, 3, batch_first=True), {"": (9, 5)}, {"input": (9, 5)}, None),
    ],
)  # fmt: skip
def test_shapes_that_are_given(module, given, shapes, note, tmp_path):
    sample = made(module, input_shape=given)
    assert dict(sample.inputs) == shapes
    notes = [n for n in sample.notes if "--input-shape" in n]
    assert bool(notes) == (note is not None)
    assert all(note in n for n in notes)


@pytest.mark.parametrize(
    ("module", "given", "message"),
    [
        (nn.Linear(5, 2), {"": (6,)}, "does not run on an input of the shape given"),
        (nn.Linear(5, 2), {"image": (5,)}, r"no input 'image'\. It has: input"),
        (Pair(), {"image": (4, 9, 9)}, "it takes image, metadata"),
    ],
)
def test_shapes_that_make_no_sense(module, given, message):
    with pytest.raises(OptionError, match=message):
        made(module, input_shape=given)


class Never(nn.Module):
    """Runs on nothing, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.fc = nn.Linear(12345, 2)
        self.calls = []

    def forward(self, x, y):
        self.calls.append(1)
        raise RuntimeError("no")


def _with(module: nn.Module, **attributes: object) -> nn.Module:
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


ODD = {
    "no sizes": lambda: _with(nn.Unflatten(1, (2, 3)), unflattened_size=()),
    "sizes that are words": lambda: _with(nn.Unflatten(1, (2, 3)), unflattened_size=("a", "b")),
    "no table": lambda: _with(nn.Embedding(5, 3), weight=None),
    "a row for a matrix": lambda: _with(nn.Linear(3, 2), weight=nn.Parameter(torch.ones(3))),
    "a number for a matrix": lambda: _with(nn.Linear(3, 2), weight=nn.Parameter(torch.ones(()))),
    "a matrix for a kernel": lambda: _with(
        nn.Conv2d(3, 2, 3), weight=nn.Parameter(torch.ones(2, 3))
    ),
    "groups that are a word": lambda: _with(nn.Conv2d(1, 2, 3), groups="ab"),
    "features that are a word": lambda: _with(nn.BatchNorm1d(4, affine=False), num_features="x"),
    "less than no features": lambda: _with(nn.BatchNorm1d(4, affine=False), num_features=-5),
}
"""Layers as a file may hold them: any attribute can be of any kind."""


@pytest.mark.parametrize("name", ODD)
def test_layers_that_say_nonsense_are_not_asked(name):
    with pytest.raises(DataError):
        made(nn.Sequential(ODD[name](), nn.Linear(7, 2), nn.Conv3d(1, 1, 1)))


def test_it_ends_where_nothing_is_found():
    with pytest.raises(DataError, match=r"--input-shape x=3x224x224 --input-shape y="):
        made(Never())
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(99991, 2))
    with pytest.raises(GradscopeError) as error:
        made(model)
    assert "\n" not in str(error.value)
    assert RUNS <= 200


def test_first_layers_are_asked_in_order():
    assert next(iter(first_specs(nn.Sequential(nn.ReLU(), nn.Linear(3, 2))))) == Spec((3,))
