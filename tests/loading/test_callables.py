"""``module:callable``: whatever people's loaders yield, the same each time, no more than needed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from gradscope.config import DataSettings
from gradscope.errors import DataError, GradscopeError
from gradscope.loading import from_code, load_sample
from gradscope.model import LoadedModel, Sample
from tests.loading.test_binding import AsDictionary, Masked, Pair, Translate, exact

CODE = """
import itertools
from collections import UserDict, namedtuple
import numpy as np
import torch
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

X, Y = torch.arange(40.).reshape(10, 4), torch.arange(10) % 3
IDS, MASK = torch.ones(6, 3, dtype=torch.int32), torch.ones(6, 3, dtype=torch.long)
IMAGE, META = torch.zeros(6, 1, 5, 5), torch.ones(6, 5)
made = 0

def pairs(): return [(X[:5], Y[:5]), (X[5:], Y[5:])]
def lists(): return ([x, y] for x, y in pairs())
def arrays(): return [(x.numpy(), y.numpy()) for x, y in pairs()]
def swapped(): return [(X.numpy().astype(">f8"), Y.numpy().astype(np.uint16))]
def label_list(): return [(X, [int(y) for y in Y])]
def named(): return [{"x": X, "y": Y, "id": ["a"] * 10}]
def other_mapping(): return [UserDict(x=X, labels=Y)]
def one_batch(): return X, Y
def one_tensor(): return X
def singles(): return ((X[i:i+1], Y[i]) for i in range(10))
shuffled = DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True)
class Rows(Dataset):
    def __len__(self): return 10
    def __getitem__(self, i): return X[i], int(Y[i])
dataset = Rows()
class Flow(IterableDataset):
    def __iter__(self): return iter(list(zip(X, Y)))
flow = Flow()
iterator = iter(pairs())
def once_only(it=iter(pairs())): return it
def forever():
    while True:
        yield X, Y
endless = forever()
def noise():
    while True:
        yield torch.randn(8, 4), torch.randint(3, (8,))
def unseeded():
    random = np.random.default_rng()
    return [random.normal(size=(5, 4))]
def graph(): return [(X.clone().requires_grad_() * 1, Y)]
def nan(): return [(torch.full((3, 4), float("nan")), Y[:3])]
def nan_labels(): return [(X, torch.full((10,), float("nan")))]
def integers(): return [(X.to(torch.uint8), Y)]

def images(): return [(IMAGE, META, torch.zeros(6).long())]
def images_unlabelled(): return [(IMAGE, META)]
def images_named(): return [{"metadata": META, "image": IMAGE, "label": torch.zeros(6)}]
def images_nested(): return [({"metadata": META, "image": IMAGE}, torch.zeros(6))]
def tokens(): return [{"input_ids": IDS, "attention_mask": MASK, "labels": torch.zeros(6).long()}]
def translation(): return [(IDS, IDS, IDS.long())]
def packed():
    parts = [torch.arange(4. * n).reshape(n, 4) for n in (2, 5, 3, 1)]
    return [(pack_sequence(parts, enforce_sorted=False), torch.tensor([2, 5, 3, 1]) % 3)]

def nothing(): return []
def empty(): return [(X[:0], Y[:0])]
def strings(): return [["a", "b"]]
def counts(): return [(X, Y[:4])]
def three(): return [(X, X, X, Y)]
def words(): return [(X, ["a"] * 10)]
def halfway():
    yield X, Y
    raise RuntimeError("disk on fire")
def changing(): return [(X, Y), ((X, X), Y)]
def dict_of_words(): return [{"a": "b"}]
"""


class Packed(nn.Module):
    """A recurrent model that wants packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, packed):
        assert isinstance(packed, PackedSequence)
        return self.out(self.rnn(packed)[1][0][-1])


@pytest.fixture
def code(tmp_path):
    path = tmp_path / "loaders.py"
    path.write_text(CODE)
    return path


def opened(code, name: str, module: nn.Module, *, batch=None, **settings) -> Sample:
    model = LoadedModel("m", "PyTorch module", module, batch=batch)
    return load_sample(model, DataSettings(data=f"{code}:{name}", **settings))


def linear() -> nn.Module:
    return nn.Linear(4, 3)


X, Y = torch.arange(40.0).reshape(10, 4), torch.arange(10) % 3


@pytest.mark.parametrize(
    "name",
    ["pairs", "lists", "arrays", "swapped", "label_list", "named", "other_mapping", "one_batch",
     "singles", "dataset", "flow", "iterator", "graph", "integers"],
)  # fmt: skip
def test_the_same_samples_in_every_form(name, code):
    sample = opened(code, name, linear())
    for _ in range(2):
        batches = list(sample.batches())
        got = torch.cat([(*b.args, *b.kwargs.values())[0] for b in batches])
        assert torch.equal(got, X)
        assert not got.requires_grad
        assert torch.equal(torch.cat([b.labels for b in batches]).long(), Y)
        assert [b.start for b in batches] == torch.tensor([0, *(b.size for b in batches)]).cumsum(
            0
        )[:-1].tolist()
    assert (sample.samples, sample.labels) == (10, True)
    assert not any("read" in n for n in sample.notes)


@pytest.mark.parametrize(
    ("name", "module", "leaves", "labels"),
    [
        ("one_tensor", linear(), 1, False),
        ("images", Pair(), 2, True),
        ("images_unlabelled", Pair(), 2, False),
        ("images_named", Pair(), 2, True),
        ("images_nested", Pair(), 2, True),
        ("tokens", Masked(), 2, True),
        ("tokens", AsDictionary(), 1, True),
        ("translation", Translate(), 2, True),
        ("packed", Packed(), 1, True),
    ],
)
def test_models_of_several_inputs(name, module, leaves, labels, code):
    sample = opened(code, name, module)
    assert sample.labels == labels
    for batch in sample.batches():
        assert len(batch.args) + len(batch.kwargs) == leaves
        module(*batch.args, **batch.kwargs)


def test_elements_that_are_all_inputs_are_told_of(code):
    [note] = opened(code, "images_unlabelled", Pair()).notes
    assert "no labels" in note


@pytest.mark.parametrize("samples", [1, 4, 5, 7, 10, 100])
@pytest.mark.parametrize("name", ["pairs", "iterator", "forever", "endless", "noise"])
def test_samples_cut(name, samples, code):
    sample = opened(code, name, linear(), samples=samples)
    total = samples if name in ("forever", "endless", "noise") else min(samples, 10)
    assert sample.samples == total
    assert any(f"the first {samples} samples" in n for n in sample.notes) == (samples == total)
    assert sum(b.size for b in sample.batches()) == total
    assert sum(b.size for b in sample.batches()) == total


def test_a_packed_batch_is_cut_by_sequences(code):
    sample = opened(code, "packed", Packed(), samples=2)
    [batch] = sample.batches()
    assert batch.size == 2
    assert batch.args[0].data.shape == (7, 4)
    assert batch.labels.tolist() == [2, 2]


def test_what_has_no_end_is_stopped_and_told_of(code, monkeypatch):
    monkeypatch.setattr(from_code, "UNENDING", 25)
    sample = opened(code, "forever", linear(), samples=None)
    assert sample.samples == 25
    assert any("stopped after 25" in n and "--samples" in n for n in sample.notes)
    assert opened(code, "shuffled", linear(), samples=None).samples == 10
    monkeypatch.setattr(from_code, "UNENDING", 5)
    assert opened(code, "shuffled", linear(), samples=None).samples == 10


def test_an_iterator_that_is_too_large_to_keep_is_refused(code, monkeypatch):
    from gradscope.loading import batching

    monkeypatch.setattr(batching, "KEPT", 100)
    with pytest.raises(DataError, match=r"only once.*new iterator"):
        opened(code, "iterator", linear())


def test_large_batches_are_run_in_pieces(code):
    sample = opened(code, "one_batch", linear(), batch_size=4)
    assert [b.size for b in sample.batches()] == [4, 4, 2]


@pytest.mark.parametrize(("size", "sizes", "left"), [(4, [4, 4], 2), (5, [5, 5], 0), (7, [7], 3)])
def test_a_fixed_batch_is_filled_across_batches(size, sizes, left, code):
    from gradscope.loading import from_code

    class Exact(nn.Linear):
        def forward(self, x):
            assert len(x) == size
            return super().forward(x)

    sample = opened(code, "pairs", Exact(4, 3), batch=size)
    batches = list(sample.batches())
    assert [b.size for b in batches] == sizes
    assert torch.equal(torch.cat([b.args[0] for b in batches]), X[: sum(sizes)])
    assert torch.equal(torch.cat([b.labels for b in batches]), Y[: sum(sizes)])
    notes = [f"{left} samples were left out: the model takes exactly {size} at once"]
    assert [n for n in sample.notes if "exactly" in n] == (notes if left else [])
    assert from_code.UNENDING == 1_000_000


def test_shuffled_loaders_give_the_same_order_each_time_and_each_run(code):
    sample = opened(code, "shuffled", linear(), seed=3)
    before = torch.get_rng_state()
    one = torch.cat([b.args[0] for b in sample.batches()])
    two = torch.cat([b.args[0] for b in sample.batches()])
    assert torch.equal(torch.get_rng_state(), before)
    again = torch.cat([b.args[0] for b in opened(code, "shuffled", linear(), seed=3).batches()])
    other = torch.cat([b.args[0] for b in opened(code, "shuffled", linear(), seed=4).batches()])
    assert torch.equal(one, two)
    assert torch.equal(one, again)
    assert not torch.equal(one, X)
    assert not torch.equal(one, other)


def test_the_models_own_random_numbers_do_not_move_the_loaders(code):
    sample = opened(code, "noise", linear(), samples=40)
    still = [b.args[0] for b in sample.batches()]
    moved = []
    for batch in sample.batches():
        moved.append(batch.args[0])
        torch.rand(7)
    assert all(torch.equal(a, b) for a, b in zip(still, moved, strict=True))


def test_values_that_vary_are_told_of(code):
    notes = opened(code, "unseeded", linear()).notes
    assert any("other values each time" in n for n in notes)


def test_values_are_looked_at(code):
    assert any("NaN" in n for n in opened(code, "nan", linear()).notes)
    assert any("uint8 to float32" in n for n in opened(code, "integers", linear()).notes)


@pytest.mark.parametrize(
    ("name", "module", "message"),
    [
        ("nothing", linear(), "no batch"),
        ("empty", linear(), "empty batch"),
        ("strings", linear(), r"yields \[str, str\]\. Yield tensors"),
        ("counts", linear(), r"10 samples with labels \(4,\) int64"),
        ("three", linear(), r"4 elements \[\(10, 4\).*the model takes input"),
        ("words", linear(), "no tensor of labels"),
        ("halfway", linear(), r"RuntimeError: disk on fire \(loaders.py"),
        ("nan_labels", linear(), "NaN or infinite"),
        ("changing", linear(), "batches of different kinds"),
        ("dict_of_words", linear(), "without tensors"),
        ("once_only", linear(), "5 samples at first and 0 later"),
        ("translation", Pair(), r"does not run on it"),
        ("pairs", Pair(), r"does not run on it|no labels"),
        ("missing", linear(), "has no 'missing'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(name, module, message, code):
    with pytest.raises(GradscopeError, match=message) as error:
        list(opened(code, name, module).batches())
    assert "\n" not in str(error.value)


def test_too_few_for_a_fixed_batch(code):
    with pytest.raises(DataError, match=r"10 samples|no batch"):
        opened(code, "pairs", exact(64), batch=64)
