"""CSV as a model gets it: standardised, laid out as images, by the names of its inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.config import DataSettings
from gradscope.errors import DataError, GradscopeError
from gradscope.loading import load_sample, load_validation
from gradscope.model import LoadedModel, Sample
from tests.loading.test_csv import opened, write


def inputs(sample: Sample) -> torch.Tensor:
    return torch.cat([b.args[0] for b in sample.batches()])


def labels(sample: Sample) -> list[int]:
    return torch.cat([b.labels for b in sample.batches() if b.labels is not None]).tolist()


def numbers(folder: Path, table: np.ndarray, name: str = "data.csv") -> Path:
    return write(folder, "\n".join(",".join(map(repr, r)) for r in table.tolist()), name)


@pytest.mark.parametrize("batch", [7, 512])
def test_standardised_by_the_columns_of_the_chosen_rows(batch, tmp_path):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(100, 3)) * [1, 50, 0] + [1e4, 3, 7]
    sample = opened(
        nn.Linear(3, 2), numbers(tmp_path, table), standardise=True, batch_size=batch, samples=40
    )
    plain = opened(nn.Linear(3, 2).double(), numbers(tmp_path, table), samples=40)
    raw = inputs(plain).numpy()
    sd = raw.std(0)
    sd[2] = 1
    expected = (raw - raw.mean(0)) / sd
    assert np.allclose(inputs(sample).numpy(), expected, atol=1e-6)
    assert any("standardised" in n and "1 constant" in n for n in sample.notes)


def test_held_out_rows_by_the_same_mean_sd_and_classes(tmp_path):
    data = write(tmp_path, "a,y\n0,cat\n2,dog\n4,eel\n", "data.csv")
    val = write(tmp_path, "a,y\n10,eel\n12,dog\n", "val.csv")
    settings = DataSettings(data=str(data), val=str(val), standardise=True)
    model = LoadedModel("m", "", nn.Linear(1, 3))
    sample = load_sample(model, settings)
    held_out = load_validation(model, settings, sample)
    assert held_out is not None
    assert labels(held_out) == [2, 1]
    sd = np.std([0, 2, 4])
    assert torch.allclose(inputs(held_out), torch.tensor([[8 / sd], [10 / sd]]).float())
    write(tmp_path, "a,y\n10,fox\n12,dog\n", "val.csv")
    with pytest.raises(DataError, match="'fox'"):
        load_validation(model, settings, sample)


def test_unscaled_features_are_named(tmp_path):
    table = np.random.default_rng(0).normal(size=(50, 3)) * [1, 1, 200]
    text = "a,b,size\n" + "\n".join(",".join(map(repr, r)) for r in table.tolist())
    sample = opened(nn.Linear(3, 2), write(tmp_path, text))
    assert any("1 of 3 features" in n and "'size'" in n for n in sample.notes)
    assert np.allclose(inputs(sample), table, atol=1e-4)
    fine = opened(nn.Linear(3, 2), numbers(tmp_path, table / [1, 1, 200]))
    assert not any("scale" in n for n in fine.notes)


def images() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))


def test_columns_laid_out_as_images_on_request_only(tmp_path):
    table = np.arange(48.0).reshape(3, 16)
    path = numbers(tmp_path, table)
    sample = opened(images(), path, input_shape={"": (1, 4, 4)})
    assert np.array_equal(inputs(sample), table.reshape(3, 1, 4, 4))
    assert any("laid out as 1x4x4" in n for n in sample.notes)
    with pytest.raises(DataError, match="--input-shape 1x4x4 makes images of the 16 columns"):
        opened(images(), path)
    with pytest.raises(GradscopeError, match="1x5x5 has 25 elements, a sample of 'x' is 16"):
        opened(images(), path, input_shape={"": (1, 5, 5)})
    with pytest.raises(GradscopeError, match="'z' is no input"):
        opened(images(), path, input_shape={"z": (1, 4, 4)})


@pytest.mark.parametrize("channels", [0, -1, "a", None])
def test_no_images_are_suggested_of_channels_that_are_none(channels, tmp_path):
    """A file may say anything of its layers."""
    model = images()
    next(m for m in model.modules() if isinstance(m, nn.Conv2d)).in_channels = channels
    with pytest.raises(DataError, match="does not run on it"):
        opened(model, numbers(tmp_path, np.arange(48.0).reshape(3, 16)))


def test_images_are_standardised_channel_by_channel(tmp_path):
    table = np.random.default_rng(0).normal(size=(9, 16)) * 40 + 90
    sample = opened(images(), numbers(tmp_path, table), input_shape={"": (1, 4, 4)},
                    standardise=True)  # fmt: skip
    expected = (table - table.mean()) / table.std()
    assert np.allclose(inputs(sample).flatten(1), expected, atol=1e-6)


def test_a_label_among_the_features_is_hinted_at(tmp_path):
    with pytest.raises(DataError, match="--label-column"):
        opened(nn.Sequential(nn.Linear(2, 2)), write(tmp_path, "a,b,kind\n1,2,0\n3,4,1\n"))


class Rated(nn.Module):
    """Two inputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(9, 4), nn.Embedding(9, 4)

    def forward(self, user, item):
        return (self.users(user) * self.items(item)).sum(1)


def test_columns_go_to_inputs_of_their_names(tmp_path):
    sample = opened(Rated(), write(tmp_path, "item,user,day,y\n1,2,3,0.5\n4,5,6,1.5\n"))
    [batch] = sample.batches()
    assert {n: t.tolist() for n, t in batch.kwargs.items()} == {"user": [2, 5], "item": [1, 4]}
    assert any("'day' fits no input" in n for n in sample.notes)


def test_standardise_where_there_is_nothing_to(tmp_path):
    with pytest.raises(GradscopeError, match="--standardise"):
        opened(Rated(), write(tmp_path, "item,user,y\n1,2,0\n"), standardise=True)
    with pytest.raises(GradscopeError, match="--standardise"):
        load_sample(
            LoadedModel("m", "", nn.Linear(2, 2)),
            DataSettings(data="no_such:thing", standardise=True),
        )
