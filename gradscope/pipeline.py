"""The only place where stages are composed: loading, probe, rules, diagnosis.

Everything that imports torch is imported inside the functions, so that ``--help`` stays quick.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from gradscope.config import DataSettings, Settings
from gradscope.errors import GradscopeError, OptionError
from gradscope.files import check_target
from gradscope.findings import Skipped
from gradscope.progress import Progress, Silent

if TYPE_CHECKING:
    from gradscope.diagnosis import Inspection
    from gradscope.findings import Cause
    from gradscope.measurements import Measurements
    from gradscope.model import LoadedModel, Sample


def inspect(settings: Settings, progress: Progress | None = None) -> Inspection:
    """Examine one saved model.

    Args:
        settings: what the user chose.
        progress: told about long work; nobody by default.

    Raises:
        GradscopeError: the request cannot be served, or nothing could be measured.
    """
    check_outputs(settings)
    from gradscope.diagnosis import Inspection, diagnose
    from gradscope.loading import load_model
    from gradscope.probe import measure
    from gradscope.rules import run_rules

    _check_device(settings.probe.device)
    progress = progress or Silent()
    with _memory():
        progress.start("loading", None)
        model = load_model(settings.model, settings.load)
        sample, validation = _samples(model, settings.data)
        progress.finish()
        measurements = measure(
            model,
            sample,
            validation,
            settings.probe,
            settings.data.seed,
            settings.data.batch_size,
            progress,
        )
        findings = run_rules(measurements)
        if settings.probe.trial and model.module is not None and sample is not None:
            causes = diagnose(measurements, findings).causes
            measurements = _tried(
                model, sample, validation, measurements, causes, settings, progress
            )
    return Inspection(measurements, findings, diagnose(measurements, findings), settings)


def _tried(
    model: LoadedModel,
    sample: Sample,
    validation: Sample | None,
    measurements: Measurements,
    causes: tuple[Cause, ...],
    settings: Settings,
    progress: Progress,
) -> Measurements:
    """The measurements with a trial, or with the reason why there is none."""
    from gradscope.repair import run_trial

    trial = run_trial(model, sample, validation, measurements, causes, settings, progress)
    if isinstance(trial, Skipped):
        return replace(measurements, skipped=(*measurements.skipped, trial))
    return replace(measurements, trial=trial)


def check_outputs(settings: Settings) -> None:
    """Refuse an output file that cannot be written, before anything is loaded."""
    target = settings.probe.save_gradients
    if target is not None:
        inputs = (settings.model, settings.data.data, settings.data.val)
        check_target(target, inputs=inputs, option="--save-gradients")


def _samples(model: LoadedModel, settings: DataSettings) -> tuple[Sample | None, Sample | None]:
    """The data sample and the held-out one; neither where there is nothing to run them on."""
    from gradscope.loading import load_sample, load_validation

    if model.module is None:
        return None, None
    sample = load_sample(model, settings)
    return sample, load_validation(model, settings, sample)


@contextlib.contextmanager
def _memory() -> Iterator[None]:
    """Out of memory is no bug of ours; what helps is fewer samples at a time."""
    import torch

    hint = "Try a smaller --batch-size, or a smaller --input-shape if the input is made up."
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise GradscopeError("not enough memory", hint=hint) from error
    except RuntimeError as error:
        # The CPU's allocator raises no class of its own.
        if "can't allocate memory" not in str(error):
            raise
        raise GradscopeError("not enough memory", hint=hint) from error


def _check_device(name: str) -> None:
    """Refuse a device that torch does not know or this machine does not have."""
    import torch

    hint = "This machine has: " + ", ".join(_devices()) + "."
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(f"torch knows no device '{name}'", where="--device", hint=hint) from error
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # torch without CUDA raises AssertionError, a missing GPU RuntimeError.
        raise OptionError(f"there is no device '{name}'", where="--device", hint=hint) from error


def _devices() -> tuple[str, ...]:
    import torch

    gpus = tuple(f"cuda:{i}" for i in range(torch.cuda.device_count()))
    return ("cpu", *gpus)
