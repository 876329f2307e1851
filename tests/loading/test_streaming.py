"""What is read anew in every sweep gives the same batches and notes as what is kept in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from gradscope.config import DataSettings
from gradscope.errors import DataError
from gradscope.loading import load_sample, numpy_rows, picked, rows
from gradscope.model import LoadedModel

N = 300
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(N, 2, 3)).astype(np.float32)
X[250, 1, 2] = np.nan
U = RANDOM.integers(0, 255, (N, 5)).astype(np.uint8)
Y = np.eye(3)[RANDOM.integers(0, 3, N)]


class Both(nn.Module):
    """Two inputs of different types."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 3), nn.Linear(5, 3)

    def forward(self, x, u):
        return self.left(x.flatten(1)) + self.right(u)


WRITERS = {
    "stored": lambda p: np.savez(p, x=X, u=U, y=Y),
    "deflated": lambda p: np.savez_compressed(p, x=X, u=U, y=Y),
    "columns first": lambda p: np.savez(p, x=np.asfortranarray(X), u=U, y=Y),
    "columns first, deflated": lambda p: np.savez_compressed(p, x=np.asfortranarray(X), u=U, y=Y),
    "safetensors": lambda p: save_file({"x": X, "u": U, "y": Y}, p),
}


@pytest.mark.parametrize("samples", [None, 37])
@pytest.mark.parametrize("kind", WRITERS)
def test_streamed_and_kept_are_the_same(kind, samples, tmp_path, monkeypatch):
    path = tmp_path / "data.npz"
    WRITERS[kind](path)
    monkeypatch.setattr(numpy_rows, "PIECE", 256)
    settings = DataSettings(data=str(path), samples=samples, batch_size=32, seed=2)
    model = LoadedModel("m", "f", Both())
    kept = load_sample(model, settings)
    batches = list(kept.batches())
    monkeypatch.setattr(picked, "KEPT", 0)
    streamed = load_sample(model, settings)
    assert streamed.notes == kept.notes
    assert (streamed.samples, streamed.inputs) == (kept.samples, kept.inputs)
    for _ in range(2):
        for one, two in zip(batches, streamed.batches(), strict=True):
            assert (one.start, one.size) == (two.start, two.size)
            assert torch.equal(one.labels, two.labels)
            for name in ("x", "u"):
                torch.testing.assert_close(
                    one.kwargs[name], two.kwargs[name], rtol=0, atol=0, equal_nan=True
                )
    assert any("one-hot" in n for n in kept.notes)
    assert any("'u' was turned from uint8" in n for n in kept.notes)
    if samples is None:
        assert "'x' holds NaN or infinite values" in kept.notes


def test_no_more_than_a_batch_is_read_at_a_time(tmp_path, monkeypatch):
    """The largest number of rows that are ever asked for at once."""
    path = tmp_path / "data.npz"
    np.savez(path, x=X, u=U)
    asked = []
    take = numpy_rows.Stored.take

    def counted(self, wanted: rows.Rows):
        asked.append(len(wanted))
        return take(self, wanted)

    monkeypatch.setattr(picked, "KEPT", 0)
    monkeypatch.setattr(numpy_rows.Stored, "take", counted)
    settings = DataSettings(data=str(path), samples=None, batch_size=16)
    list(load_sample(LoadedModel("m", "f", Both()), settings).batches())
    assert max(asked) == 16


def test_a_file_that_breaks_off_is_told_of_before_anything_long_begins(tmp_path, monkeypatch):
    """In the middle of a deflated array, long after the first batch."""
    path = tmp_path / "data.npz"
    big = RANDOM.normal(size=(N, 2, 3)).astype(np.float32)
    np.savez_compressed(path, x=big, u=U)
    content = bytearray(path.read_bytes())
    middle = content.index(b"u.npy") - 60
    content[middle : middle + 8] = bytes(8)
    path.write_bytes(bytes(content))
    monkeypatch.setattr(picked, "KEPT", 0)
    with pytest.raises(DataError, match="broken"):
        load_sample(LoadedModel("m", "f", Both()), DataSettings(data=str(path), samples=None))
