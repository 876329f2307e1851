"""Hostile tables, samples, settings and baselines are refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from gradscope.checking.baseline import read_baseline
from gradscope.config import DataSettings
from gradscope.errors import GradscopeError
from gradscope.loading import load_sample
from gradscope.model import LoadedModel
from gradscope.settings_file import find_settings
from tests.hostile_data import BASELINES, SAMPLES, SETTINGS


def data(path: Path) -> None:
    model = LoadedModel("m", "PyTorch module", nn.Linear(5, 2))
    list(load_sample(model, DataSettings(data=str(path))).batches())


CASES = [
    *((name, build, data) for name, build in SAMPLES.items()),
    *((name, build, lambda path: find_settings(path.parent)) for name, build in SETTINGS.items()),
    *((name, build, lambda path: read_baseline(str(path))) for name, build in BASELINES.items()),
]


@pytest.mark.parametrize(("name", "build", "opens"), CASES, ids=[c[0] for c in CASES])
def test_refused_in_one_line(name, build, opens, tmp_path: Path):
    path = build(tmp_path)
    with pytest.raises(GradscopeError) as error:
        opens(path)
    assert error.value.exit_status == 2
    assert len(str(error.value)) < 700
