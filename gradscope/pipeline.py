"""The only place where stages are composed: loading, probe, rules, diagnosis.

Everything that imports torch is imported inside the functions, so that ``--help`` stays quick.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from gradscope.commandline import next_command
from gradscope.config import FixSettings, Settings
from gradscope.errors import GradscopeError, OptionError
from gradscope.files import check_target
from gradscope.findings import Skipped
from gradscope.model import Given
from gradscope.progress import Progress, Silent
from gradscope.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from gradscope.diagnosis import Inspection
    from gradscope.findings import Cause
    from gradscope.measurements import Measurements
    from gradscope.model import LoadedModel, Sample
    from gradscope.rules import Limits
    from gradscope.treatment import Run, Treatment


def inspect(
    settings: Settings,
    progress: Progress | None = None,
    given: Given | None = None,
    ranks: Ranks = ALONE,
) -> Inspection:
    """Examine one model.

    Args:
        settings: what the user chose.
        progress: told about long work; nobody by default.
        given: a model or data in memory; what is not there is read from files.
        ranks: the processes that share the sample; each of them gets the whole result.

    Raises:
        GradscopeError: the request cannot be served, or nothing could be measured.
    """
    with ranks.together():
        return _inspected(settings, progress or Silent(), given or Given(), ranks)


def _inspected(settings: Settings, progress: Progress, given: Given, ranks: Ranks) -> Inspection:
    check_outputs(settings)
    limits_of(settings)
    from gradscope.loading import hold_model, in_precision, lent_values, load_model, spread

    _check_map(settings, ranks)
    settings = replace(
        settings, probe=replace(settings.probe, device=ranks.device(settings.probe.device))
    )
    check_device(settings.probe.device)
    with memory(), plain(), contextlib.ExitStack() as lent:
        progress.start("loading", None)
        if given.model is not None:
            own = hold_model(given.model, settings.model)
            model = lent.enter_context(lent_values(own, settings.load.values))
        else:
            model = load_model(settings.model, settings.load)
            model = in_precision(model, settings.probe.dtype)
            model, device = lent.enter_context(spread(model, settings.probe.device_map))
            if device is not None:
                settings = replace(settings, probe=replace(settings.probe, device=device))
        sample, validation = samples_of(model, settings, given)
        progress.finish()
        return examined(model, sample, validation, settings, progress, ranks)


def examined(
    model: LoadedModel,
    sample: Sample | None,
    validation: Sample | None,
    settings: Settings,
    progress: Progress,
    ranks: Ranks = ALONE,
) -> Inspection:
    from gradscope.diagnosis import Inspection, diagnose
    from gradscope.probe import measure
    from gradscope.rules import run_rules

    seed, size = settings.data.seed, model.batch or settings.data.batch_size
    parity = model.verify(sample) if model.verify is not None and sample is not None else None
    measurements = measure(model, sample, validation, settings.probe, seed, size, progress, ranks)
    measurements = replace(measurements, run=replace(measurements.run, parity=parity))
    limits = limits_of(settings)
    command = None if settings.in_memory else partial(next_command, settings)
    findings = run_rules(measurements, limits, command)
    measurements = _with_reference(measurements, sample, limits)
    if measurements.reference is not None:
        findings = run_rules(measurements, limits, command)
    if settings.probe.trial and model.module is not None and sample is not None:
        causes = diagnose(measurements, findings).causes
        measurements = _tried(model, sample, validation, measurements, causes, settings, progress)
        findings = run_rules(measurements, limits, command)
    return Inspection(measurements, findings, diagnose(measurements, findings), settings)


def fix(
    settings: Settings,
    repair: FixSettings,
    progress: Progress | None = None,
    run: Run | None = None,
    ranks: Ranks = ALONE,
) -> Treatment:
    """Repair one saved model and write it back in the form in which it came.

    Args:
        settings: the model, its data, how it is measured.
        repair: how it is repaired, and where the result goes.
        progress: told about long work; nobody by default.
        run: keeps the run, so that it can be resumed and repeated; None: nothing is kept of it.
        ranks: the processes that share the work; only the first one writes.

    Raises:
        GradscopeError: the request cannot be served, or nothing could be measured.
    """
    from gradscope.fixing import Fixing

    with ranks.together(), memory(), plain():
        device = ranks.device(settings.probe.device)
        check_device(device)
        settings = replace(settings, probe=replace(settings.probe, device=device))
        return Fixing(settings, repair, progress or Silent(), run, ranks).run()


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


def _with_reference(measured: Measurements, sample: Sample | None, limits: Limits) -> Measurements:
    """The measurements with what a plain learner reaches, where the verdict depends on it."""
    from gradscope.diagnosis import diagnose, if_all_could_be_learned
    from gradscope.probe import reference
    from gradscope.rules import run_rules

    skill, perfect = measured.skill, if_all_could_be_learned(measured)
    if sample is None or skill is None or perfect is None:
        return measured
    now, then = (diagnose(m, run_rules(m, limits)) for m in (measured, perfect))
    if now.verdict is then.verdict:
        return measured
    found = reference(sample, skill.loss_kind)
    if isinstance(found, Skipped):
        return replace(measured, skipped=(*measured.skipped, found))
    return replace(measured, reference=found)


def limits_of(settings: Settings) -> Limits:
    """Thresholds from the settings file, and over them those from flags."""
    from gradscope.rules import check_limits, joined, parse_limit

    file = check_limits(settings.rules, settings.rules_from or "rules")
    return joined([file, *(parse_limit(text, "--limit") for text in settings.limits)])


def check_outputs(settings: Settings) -> None:
    """Refuse an output file that cannot be written, before anything is loaded."""
    target = settings.probe.save_gradients
    if target is not None:
        check_target(target, inputs=inputs_of(settings), option="--save-gradients")


def inputs_of(settings: Settings) -> tuple[str | None, ...]:
    """Everything that is read: what the user named, and the files that those refer to."""
    named = settings.inputs()
    return (*named, *(c for name in named if name is not None for c in companions_of(name)))


def companions_of(path: str) -> tuple[str, ...]:
    """Files that a model refers to by name: external data, shards of an index."""
    from gradscope.loading.companions import companions

    return companions(path)


def samples_of(
    model: LoadedModel, settings: Settings, given: Given
) -> tuple[Sample | None, Sample | None]:
    """The data sample and the held-out one; neither where there is nothing to run them on."""
    from gradscope.loading import load_sample, load_validation

    if model.module is None:
        return None, None
    data, loss = settings.data, settings.probe.loss
    sample = load_sample(model, data, loss, given.data)
    return sample, load_validation(model, data, sample, loss, given.val)


@contextlib.contextmanager
def memory() -> Iterator[None]:
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


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Gradients in full precision, whatever the calling program has switched off or on."""
    import torch

    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


def _check_map(settings: Settings, ranks: Ranks) -> None:
    """Refuse a device map beside another say on devices."""
    if settings.probe.device_map is None:
        return
    if settings.probe.device != "cpu":
        hint = "Leave one of them out."
        raise OptionError("says itself where the model runs", where="--device-map", hint=hint)
    if ranks.size > 1:
        hint = "Run it without torchrun, or leave it out."
        raise OptionError("is for a single process", where="--device-map", hint=hint)


def check_device(name: str) -> None:
    """Refuse a device that torch does not know or this machine does not have."""
    import torch

    hint = "This machine has: " + ", ".join(_devices()) + "."
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(f"torch knows no device '{name}'", where="--device", hint=hint) from error
    try:
        torch.empty(1, device=device).item()  # where numbers are: not on torch's meta device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # torch without CUDA raises AssertionError, a missing GPU RuntimeError.
        raise OptionError(f"there is no device '{name}'", where="--device", hint=hint) from error


def _devices() -> tuple[str, ...]:
    import torch

    gpus = tuple(f"cuda:{i}" for i in range(torch.cuda.device_count()))
    return ("cpu", *gpus)
