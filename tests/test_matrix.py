"""The same model gives the same numbers from whatever file it was saved to.

Every architecture of :mod:`tests.architectures` x six forms, through files on disk and the public
pipeline. Eager, the module pickled whole, is the measure of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_model
from torch import Tensor, nn

from gradscope.config import DataSettings, LoadSettings, Settings
from gradscope.measurements import Head, Measurements, Parameter, Site
from gradscope.pipeline import inspect
from tests import architectures
from tests.architectures import ARCHITECTURES, Architecture

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's, as it scripts, traces and exports


def near(value: Any) -> Any:
    """Equal to 1e-5; what was not measured is None in both."""
    return None if value is None else pytest.approx(value, rel=1e-5, abs=1e-5)


Inputs = dict[str, Tensor]


def _export(module: nn.Module, inputs: Inputs, path: Path) -> None:
    free = tuple({0: torch.export.Dim.AUTO} for _ in inputs)
    program = torch.export.export(module, tuple(inputs.values()), dynamic_shapes=free)
    torch.export.save(program, path)


def _trace(module: nn.Module, inputs: Inputs, path: Path) -> None:
    # Its own check compares graphs and finds two where the encoder's fast path is off in one.
    torch.jit.save(torch.jit.trace(module, tuple(inputs.values()), check_trace=False), str(path))


FORMS: dict[str, Callable[[nn.Module, Inputs, Path], None]] = {
    "scripted": lambda m, _, path: torch.jit.save(torch.jit.script(m), str(path)),
    "traced": _trace,
    "exported": _export,
    "state_dict": lambda m, _, path: torch.save(m.state_dict(), path),
    "safetensors": lambda m, _, path: save_model(m, str(path)),
}


def _built(architecture: Architecture) -> tuple[nn.Module, Inputs]:
    torch.manual_seed(0)
    module = architecture.build().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)  # some saturation
    return module, architecture.inputs()


def _examined(path: Path, data: Path, load: LoadSettings) -> Measurements:
    return inspect(Settings(str(path), load, DataSettings(data=str(data)))).measurements


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=lambda a: a.name)
def eager(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Architecture, Path, Measurements]:
    architecture: Architecture = request.param
    folder = tmp_path_factory.mktemp(architecture.name)
    module, inputs = _built(architecture)
    np.savez(folder / "data.npz", **{k: v.numpy() for k, v in inputs.items()})
    torch.save(module, folder / "eager.pt")
    load = LoadSettings(allow=("tests.architectures",))
    return architecture, folder, _examined(folder / "eager.pt", folder / "data.npz", load)


def test_eager_is_measured_whole(eager):
    _, _, found = eager
    assert found.sites
    assert all(p.gradient.norm for p in found.parameters if p.used)
    assert all(s.output_gain is not None for s in found.sites if s.role != "output")
    assert {s.what for s in found.skipped} <= {f"total of {h.name}" for h in found.heads}


@pytest.mark.parametrize("form", FORMS)
def test_forms_agree(eager, form):
    architecture, folder, expected = eager
    module, inputs = _built(architecture)
    path = folder / f"model.{form}"
    FORMS[form](module, inputs, path)
    build = f"{architectures.__file__}:{architecture.build.__name__}"
    arch = build if form in ("state_dict", "safetensors") else None
    found = _examined(path, folder / "data.npz", LoadSettings(arch=arch))
    same_sites(found.sites, expected.sites)
    same_parameters(found.parameters, expected.parameters)
    assert len(found.heads) == len(expected.heads)
    for head, wanted in zip(found.heads, expected.heads, strict=True):
        same_ledger(head, wanted)
    assert [s.what for s in found.skipped] == [s.what for s in expected.skipped]


def same_sites(found: tuple[Site, ...], expected: tuple[Site, ...]) -> None:
    identity = lambda s: (s.id, s.kind, s.role, s.gate, s.calls, s.numel, s.parameters)  # noqa: E731
    assert [identity(s) for s in found] == [identity(s) for s in expected]
    for site, wanted in zip(found, expected, strict=True):
        for name in ("saturated_fraction", "mean_relative_derivative", "pre_activation_rms",
                     "activation_rms", "sample_variance_ratio", "zero_fraction",
                     "output_gain"):  # fmt: skip
            assert getattr(site, name) == near(getattr(wanted, name)), (site.id, name)
        assert [t.output_gain for t in site.time] == [near(t.output_gain) for t in wanted.time]


def same_parameters(found: tuple[Parameter, ...], expected: tuple[Parameter, ...]) -> None:
    by_name = {p.name: p for p in found}
    assert set(by_name) == {p.name for p in expected}
    for wanted in expected:
        parameter = by_name[wanted.name]
        assert parameter.gradient.state is wanted.gradient.state, wanted.name
        for name in ("norm", "max_abs"):
            one, two = getattr(parameter.gradient, name), getattr(wanted.gradient, name)
            assert one == pytest.approx(two, rel=1e-5, abs=1e-9), (wanted.name, name)
        assert parameter.weight == wanted.weight, wanted.name
        assert parameter.fan_in == wanted.fan_in, wanted.name


def same_ledger(found: Head, expected: Head) -> None:
    assert (found.shape, found.entered_before) == (expected.shape, expected.entered_before)
    one, two = found.ledger, expected.ledger
    for name in ("total", "median", "activation", "slope", "weight", "cuts", "samples"):
        assert getattr(one, name) == near(getattr(two, name)), name
    shape = lambda e: (e.site, e.kind, e.bypass, len(e.branches))  # noqa: E731
    assert [shape(e) for e in one.entries] == [shape(e) for e in two.entries]
    for entry, wanted in zip(one.entries, two.entries, strict=True):
        assert entry.cumulative == near(wanted.cumulative), entry.site
    assert [(t.site, t.steps, t.total) for t in one.time] == [
        (t.site, t.steps, near(t.total)) for t in two.time
    ]
