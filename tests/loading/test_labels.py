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
