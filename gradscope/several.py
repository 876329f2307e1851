"""Several models in one run: what ``check`` and ``compare`` compose of the examination of one.

A model that cannot be served is a line of the result, and the others are examined all the same.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from gradscope import pipeline
from gradscope.checking import (
    CheckResult,
    ModelCheck,
    RuleInfo,
    count_findings,
    refusal,
    summarise,
    unused,
    without_path,
)
from gradscope.commandline import command_for
from gradscope.comparing import Comparison, Refused, Subject, read_report, subject_of
from gradscope.comparing import compare as side_by_side
from gradscope.config import CheckSettings, Settings
from gradscope.errors import GradscopeError, ProbeError
from gradscope.progress import Named, Progress, Silent
from gradscope.ranks import ALONE, LostError, Ranks
from gradscope.rules import all_rules

if TYPE_CHECKING:
    from gradscope.checking import Entry
    from gradscope.diagnosis import Inspection


def check(
    subjects: Sequence[Settings],
    wanted: CheckSettings,
    known: Mapping[str, Iterable[Entry]] | None = None,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> CheckResult:
    """Examine saved models one after another, and say what counts of what was found.

    Args:
        subjects: the models, each with its data and how it is opened.
        wanted: what is selected and ignored, and what fails.
        known: findings of a baseline, by ``Settings.model``.
        progress: told about long work; nobody by default.
        ranks: the processes that share each sample.

    Raises:
        OptionError: a setting that no model could be served with. A model that cannot be served is
            no error here: it is a line of the result.
    """
    _check_settings(subjects)
    before, shown, n = known or {}, progress or Silent(), len(subjects)
    models = tuple(
        _checked(s, wanted, before.get(s.model, ()), Named(shown, f"{i} of {n}, {s.model}"), ranks)
        for i, s in enumerate(subjects, 1)
    )
    notes = tuple(unused(wanted, models))
    return CheckResult(models, summarise(models), wanted.fail_on, notes, rules=_rules())


def _checked(
    settings: Settings,
    wanted: CheckSettings,
    known: Iterable[Entry],
    progress: Progress,
    ranks: Ranks,
) -> ModelCheck:
    """One model; nothing of it is kept but what was found."""
    try:
        inspection = _inspected(settings, progress, ranks)
    except LostError:
        raise  # there is nobody left to examine the next one with
    except GradscopeError as error:
        return refusal(settings.model, str(error), error.exit_status)
    return count_findings(settings.model, inspection, wanted, known, command_for(settings))


def compare(
    subjects: Sequence[Settings],
    tolerance: float,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
    *,
    fails: bool = False,
) -> Comparison:
    """Models, checkpoints or saved reports side by side; with reports alone, torch is not needed.

    Args:
        subjects: two or more: each a model with its data and how it is opened, or a saved report,
            told by its content. The first is what the others are compared with.
        tolerance: by how much the number of a finding may get worse, as in a check.
        progress: told about long work; nobody by default.
        ranks: the processes that share each sample.
        fails: whether a regression makes the exit status 1.

    Raises:
        GradscopeError: fewer than two of them can be served: the first refusal. With two or more,
            a refusal is no error: it is a line of the result.
    """
    saved = [_read(s.model) for s in subjects]  # reports first: they are refused at once
    _check_settings([s for s, report in zip(subjects, saved, strict=True) if report is None])
    shown, n = progress or Silent(), len(subjects)
    served = [
        report or _compared(settings, Named(shown, f"{i} of {n}, {settings.model}"), ranks)
        for i, (report, settings) in enumerate(zip(saved, subjects, strict=True), 1)
    ]
    errors = [one for one in served if isinstance(one, GradscopeError)]
    if len(served) - len(errors) < 2:
        raise errors[0]
    found = [
        Refused("", s.model, without_path(str(one), s.model), one.exit_status)
        if isinstance(one, GradscopeError)
        else one
        for s, one in zip(subjects, served, strict=True)
    ]
    return side_by_side(found, tolerance, fails=fails, rules=_rules())


def _read(path: str) -> Subject | GradscopeError | None:
    """A saved report, or why it is none; None: it is a model."""
    try:
        return read_report(path)
    except GradscopeError as error:
        return error
    except OSError as error:
        return _of_system(error, path)


def _compared(settings: Settings, progress: Progress, ranks: Ranks) -> Subject | GradscopeError:
    """One model, or why it cannot be served; nothing of it is kept but what is compared."""
    try:
        inspection = _inspected(settings, progress, ranks)
    except LostError:
        raise
    except GradscopeError as error:
        return error
    if inspection.measurements.is_empty:
        return ProbeError("nothing could be measured", where=settings.model)
    return subject_of(settings.model, inspection, command_for(settings))


def _inspected(settings: Settings, progress: Progress, ranks: Ranks) -> Inspection:
    """The examination of one model of several.

    Raises:
        GradscopeError: it cannot be served, also where the system or the model's own code says so.
    """
    path = settings.model
    try:
        return pipeline.inspect(settings, progress, ranks=ranks)
    except GradscopeError:
        raise
    except OSError as error:
        raise _of_system(error, path) from error
    except (SystemExit, GeneratorExit) as error:
        hint = "Guard it with `if __name__ == '__main__':`."
        what = f"the code that was run ended with {error!r}"
        raise GradscopeError(what, where=path, hint=hint) from error
    except Exception as error:  # a bug of ours: which of the models shows it?
        error.add_note(f"while examining {path}")
        raise
    finally:
        gc.collect()  # modules hold themselves in cycles; the next model needs the memory


def _of_system(error: OSError, path: str) -> GradscopeError:
    return GradscopeError(error.strerror or str(error), where=str(error.filename or path))


def _check_settings(subjects: Sequence[Settings]) -> None:
    """Refuse what no model could be served with, before the first is opened."""
    for settings in {s.probe.device: s for s in subjects}.values():
        pipeline.check_device(settings.probe.device)
        pipeline.limits_of(settings)


def _rules() -> dict[str, RuleInfo]:
    return {
        r.code: RuleInfo(r.code, r.name, r.summary, r.explanation, r.remedy.advice)
        for r in all_rules()
    }
