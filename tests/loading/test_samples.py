"""Samples: matched by name, cut with the labels' proportions, in the model's type, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gradscope.config import DataSettings
from gradscope.errors import DataError, GradscopeError
from gradscope.loading import load_sample, load_validation
from gradscope.model import LoadedModel, Sample


def opened(module: nn.Module, data: object, **settings) -> Sample:
    model = LoadedModel("m", "PyTorch module", module)
    return load_sample(model, DataSettings(data=None if data is None else str(data), **settings))


def whole(sample: Sample):
    batches = list(sample.batches())
    return [b.args for b in batches], [b.kwargs for b in batches], [b.labels for b in batches]


X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
Y = np.arange(20) % 3


def linear() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3))


def write(folder: Path, kind: str) -> Path:
    path = folder / f"data.{kind}"
    if kind == "npz":
        np.savez(path, x=X, y=Y)
    elif kind == "npy":
        np.save(path, X)
    elif kind == "pt":
        torch.save({"x": torch.from_numpy(X), "y": torch.from_numpy(Y)}, path)
    else:
        save_file({"x": torch.from_numpy(X), "y": torch.from_numpy(Y)}, path)
    return path


@pytest.mark.parametrize("kind", ["npz", "npy", "pt", "safetensors"])
def test_files_of_every_kind(kind, tmp_path):
    sample = opened(linear(), write(tmp_path, kind), batch_size=8)
    args, _, labels = whole(sample)
    assert torch.equal(torch.cat([a[0] for a in args]), torch.from_numpy(X))
    assert [len(a[0]) for a in args] == [8, 8, 4]
    assert sample.labels == (kind != "npy")
    if sample.labels:
        assert torch.equal(torch.cat(labels), torch.from_numpy(Y))
    assert whole(sample)[0][0][0].equal(args[0][0])  # a second time, the same


class Two(nn.Module):
    """A named and an optional input; integers for the one."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, tokens, weights=None):
        h = self.table(tokens).mean(1)
        return self.out(h if weights is None else h * weights)


def test_several_inputs_by_name_and_integers_stay_integers(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, tokens=np.ones((20, 5), np.int32), weights=X, labels=Y, extra=X)
    sample = opened(Two(), path)
    _, kwargs, _ = whole(sample)
    assert set(kwargs[0]) == {"tokens", "weights"}
    assert kwargs[0]["tokens"].dtype is torch.int64
    assert sample.labels
    assert any("extra" in n for n in sample.notes)


def test_integers_become_numbers_for_a_model_of_numbers_and_are_not_rescaled(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, x=np.full((20, 4), 200, np.uint8))
    sample = opened(linear(), path)
    assert whole(sample)[0][0][0].eq(200).all()
    assert any("uint8 to float32" in n for n in sample.notes)


def test_the_cut_keeps_the_proportions_of_the_labels(tmp_path):
    path = tmp_path / "d.npz"
    y = np.repeat([0, 1, 2], [500, 300, 200])
    np.savez(path, x=np.zeros((1000, 4), np.float32), y=y)
    sample = opened(linear(), path, samples=100)
    labels = torch.cat(whole(sample)[2])
    counts = labels.bincount()
    assert (sample.samples, sample.available) == (100, 1000)
    assert all(abs(int(c) - w) <= 1 for c, w in zip(counts, (50, 30, 20), strict=True))
    again = torch.cat(whole(opened(linear(), path, samples=100))[2])
    assert torch.equal(labels, again)


def test_without_data_an_input_is_made_up():
    for module, shape in (
        (linear(), (4,)),
        (nn.Sequential(nn.Conv2d(3, 2, 3)), (3, 32, 32)),
        (nn.LSTM(5, 3, batch_first=True), (16, 5)),
    ):
        sample = opened(module, None)
        assert sample.synthetic
        assert sample.inputs == {"input": shape}
        assert any("synthesised" in n for n in sample.notes)
    tokens = whole(opened(Two(), None))[0][0][0]
    assert tokens.dtype is torch.int64
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < 9


CALLABLES = """
import torch
def pairs():
    for i in range(4):
        yield torch.full((5, 4), float(i)), torch.zeros(5, dtype=torch.long)
def dicts():
    return [{"x": torch.zeros(6, 4), "y": torch.zeros(6, dtype=torch.long)}]
def tensors():
    return [torch.zeros(3, 4)]
loader = torch.utils.data.DataLoader(
    torch.utils.data.TensorDataset(torch.zeros(9, 4), torch.zeros(9).long()), batch_size=4)
generator = iter([(torch.zeros(5, 4), torch.zeros(5))])
def raises():
    raise RuntimeError("no data today")
def empty():
    return []
def garbage():
    return [object()]
def number():
    return 7
"""


@pytest.mark.parametrize(
    ("name", "samples", "labels"),
    [("pairs", 20, True), ("dicts", 6, True), ("tensors", 3, False), ("loader", 9, True),
     ("generator", 5, True)],
)  # fmt: skip
def test_callables(name, samples, labels, tmp_path):
    (tmp_path / "c.py").write_text(CALLABLES)
    sample = opened(linear(), f"{tmp_path / 'c.py'}:{name}")
    assert (sample.samples, sample.labels) == (samples, labels)
    assert sum(b.size for b in sample.batches()) == samples
    assert sum(b.size for b in sample.batches()) == samples
    assert next(b.start for b in sample.batches()) == 0


def test_callables_stop_at_the_samples_asked_for(tmp_path):
    (tmp_path / "c.py").write_text(CALLABLES)
    sample = opened(linear(), f"{tmp_path / 'c.py'}:pairs", samples=7)
    assert [b.size for b in sample.batches()] == [5, 2]


def bad(folder: Path, name: str) -> str:
    path = folder / "bad.npz"
    if name.startswith("callable "):
        (folder / "c.py").write_text(CALLABLES)
        return f"{folder / 'c.py'}:{name.removeprefix('callable ')}"
    arrays = {
        "wrong features": {"x": np.zeros((5, 9), np.float32)},
        "two unknown names": {"left": X, "right": X},
        "other length": {"x": X, "y": Y[:7]},
        "no samples": {"x": X[:0], "y": Y[:0]},
        "empty array": {"x": np.zeros((5, 0), np.float32)},
        "labels only": {"y": Y},
        "single number": {"x": np.float32(3)},
        "text": {"x": np.array(["a", "b"])},
        "complex": {"x": X.astype(np.complex128)},
        "objects": {"x": np.array([{}, {}], dtype=object)},
        "dates": {"x": np.array(["2020-01-01"], dtype="datetime64[D]")},
    }
    if name in arrays:
        np.savez(path, **arrays[name])
    elif name == "truncated":
        np.savez(path, x=X)
        path.write_bytes(path.read_bytes()[:200])
    elif name == "flipped":
        np.savez_compressed(path, x=X)
        data = bytearray(path.read_bytes())
        data[70] ^= 0xFF
        path.write_bytes(bytes(data))
    elif name == "empty":
        path.write_bytes(b"")
    elif name == "words":
        path.write_text("not an array\n")
    elif name == "missing":
        return str(folder / "nothing.npz")
    elif name == "folder":
        return str(folder)
    return str(path)


BAD = [
    "wrong features", "two unknown names", "other length", "no samples", "empty array",
    "labels only",
    "single number", "text", "complex", "objects", "dates", "truncated", "flipped", "empty",
    "words", "missing", "folder", "callable raises", "callable empty", "callable garbage",
    "callable number", "callable nothing",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_refused_in_one_line(name, tmp_path):
    with pytest.raises(GradscopeError) as error:
        opened(linear(), bad(tmp_path, name))
    assert "\n" not in str(error.value)
    assert error.value.exit_status == 2


def test_what_does_not_fit_names_the_layer_and_both_shapes(tmp_path):
    with pytest.raises(DataError, match=r"\(9,\) float32.*'0' \(Linear, which takes 4 "):
        opened(linear(), bad(tmp_path, "wrong features"))


def test_held_out_data_need_labels(tmp_path):
    model = LoadedModel("m", "PyTorch module", linear())
    path = write(tmp_path, "npy")
    with pytest.raises(DataError, match="without labels"):
        load_validation(model, DataSettings(val=str(path)))
    assert load_validation(model, DataSettings()) is None
