"""Labels in every shape people save them in; nothing is turned without a note."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.config import DataSettings
from gradscope.errors import DataError
from gradscope.loading import load_sample
from gradscope.model import LoadedModel

N = 12
CLASSES = np.arange(N) % 3
HOT = np.eye(3)[CLASSES]
FLAGS = np.arange(N) % 2
REAL = np.linspace(0, 1, N)
SEVERAL = np.stack([FLAGS, FLAGS, 1 - FLAGS], 1)
STEPS = np.stack([CLASSES] * 4, 1)


class Steps(nn.Module):
    """One answer a step: (n, 4, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(2, 3)

    def forward(self, x):
        return self.out(x).unsqueeze(1).expand(-1, 4, -1)


class Flat(nn.Linear):
    """One number a sample: (n,)."""

    def forward(self, x):
        return super().forward(x).squeeze(-1)


def taken(y, folder, outputs: nn.Module | int, loss="auto", samples=512):
    """(labels as the losses get them, notes on labels)."""
    path = folder / "d.npz"
    np.savez(path, x=np.zeros((len(y), 2), np.float32), y=y)
    module = nn.Linear(2, outputs) if isinstance(outputs, int) else outputs
    model = LoadedModel("m", "PyTorch module", module)
    sample = load_sample(model, DataSettings(data=str(path), batch_size=5, samples=samples), loss)
    labels = torch.cat([b.labels for b in sample.batches()])
    return labels, [n for n in sample.notes if "labels" in n], sample


@pytest.mark.parametrize(
    ("y", "outputs", "loss", "wanted", "note"),
    [
        (CLASSES, 3, "auto", CLASSES, None),
        (CLASSES.astype(np.uint8), 3, "auto", CLASSES.astype(np.uint8), None),
        (CLASSES[:, None], 3, "auto", CLASSES, r"columns \(n, 1\)"),
        (CLASSES.astype(np.float32), 3, "auto", CLASSES, "whole numbers saved as float32"),
        (CLASSES[:, None].astype(float), 3, "auto", CLASSES, "whole numbers saved as float64"),
        (HOT, 3, "auto", CLASSES, "one-hot .* 3 classes"),
        (HOT.astype(np.int64), 3, "cross-entropy", CLASSES, "one-hot"),
        (HOT, 3, "bce", HOT, None),
        (HOT, 3, "mse", HOT, None),
        (SEVERAL, 3, "auto", SEVERAL, None),
        (REAL, 1, "auto", REAL, None),
        (REAL[:, None], 1, "auto", REAL[:, None], None),
        (CLASSES.astype(float), 1, "auto", CLASSES.astype(float), None),
        (CLASSES[:, None], 1, "auto", CLASSES[:, None], None),
        (HOT.astype(bool), 3, "auto", CLASSES, "one-hot"),
        (FLAGS.astype(bool), 2, "auto", FLAGS, None),
        (FLAGS.astype(bool), 1, "auto", FLAGS, None),
        (FLAGS, Flat(2, 1), "auto", FLAGS, None),
        (STEPS, Steps(), "auto", STEPS, None),
        (STEPS.astype(np.float32), Steps(), "auto", STEPS, "whole numbers"),
        (CLASSES.astype(float) + 7, 3, "auto", CLASSES.astype(float) + 7, None),
        (CLASSES.astype(float), 3, "module:loss", CLASSES.astype(float), None),
    ],
)
def test_labels_as_the_losses_take_them(y, outputs, loss, wanted, note, tmp_path):
    labels, notes, _ = taken(y, tmp_path, outputs, loss)
    assert np.array_equal(labels.numpy(), wanted)
    assert labels.is_floating_point() == (np.asarray(wanted).dtype.kind == "f")
    if note is None:
        assert notes == []
    else:
        [found] = notes
        assert re.search(note, found)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_labels_that_are_no_numbers_are_refused(value, tmp_path):
    y = REAL.copy()
    y[7] = value
    with pytest.raises(DataError, match="labels 'y' hold 1 NaN or infinite"):
        taken(y, tmp_path, 1)


@pytest.mark.parametrize(
    "y", [CLASSES, CLASSES[:, None], CLASSES.astype(float), HOT, HOT.astype(bool)]
)
def test_the_cut_keeps_the_proportions_however_classes_are_saved(y, tmp_path):
    many = np.concatenate([y] * 10)
    labels, _, sample = taken(many, tmp_path, 3, samples=30)
    if labels.dim() > 1:
        labels = labels.argmax(1)
    assert labels.long().flatten().bincount().tolist() == [10, 10, 10]
    assert any("stratified" in n for n in sample.notes)


def test_real_labels_are_cut_at_random(tmp_path):
    _, _, sample = taken(REAL, tmp_path, 1, samples=5)
    assert any("at random" in n for n in sample.notes)


STORED = [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("samples", [None, 6])
@pytest.mark.parametrize("dtype", STORED)
def test_types_in_which_torch_only_stores_are_widened(dtype, samples, tmp_path):
    path = tmp_path / "data.pt"
    y = torch.from_numpy(CLASSES)
    torch.save({"x": torch.ones(N, 2).to(dtype), "y": y.to(dtype)}, path)
    model = LoadedModel("m", "PyTorch module", nn.Linear(2, 3))
    for sample in (
        load_sample(model, DataSettings(data=str(path), samples=samples)),
        load_sample(model, DataSettings(samples=samples), held=torch.load(path)),
    ):
        labels = torch.cat([b.labels for b in sample.batches()])
        assert labels.bincount().tolist() == ([4, 4, 4] if samples is None else [2, 2, 2])
        assert all(bool((b.args[0] == 1).all()) for b in sample.batches())


def test_batches_of_such_types():
    model = LoadedModel("m", "PyTorch module", nn.Linear(2, 3))
    y = torch.from_numpy(CLASSES)
    held = [(torch.ones(N, 2).to(torch.float8_e5m2), y.to(torch.uint16))]
    [batch] = load_sample(model, DataSettings(), held=held).batches()
    assert torch.equal(batch.labels, y)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.full((N,), 2**64 - 1, dtype=torch.uint64), "beyond 64 bits"),
        (torch.ones(N, dtype=torch.uint8).view(torch.bits8), "'y' is no plain tensor"),
        (torch.ones(N, dtype=torch.complex64), "labels 'y' are complex numbers"),
    ],
)
def test_what_is_no_label_is_refused(tensor, message, tmp_path):
    path = tmp_path / "data.pt"
    torch.save({"x": torch.ones(N, 2), "y": tensor}, path)
    model = LoadedModel("m", "PyTorch module", nn.Linear(2, 3))
    with pytest.raises(DataError, match=message):
        load_sample(model, DataSettings(data=str(path)))
