"""A model watched while it is trained: examined every so many steps, trained as if it were not.

For a loop of one's own; ``gradscope.lightning`` has the callback for Lightning. Losses, weights,
the optimiser and the random numbers are, bit for bit, those of the same training without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gradscope.api import Report, inspect
from gradscope.errors import OptionError
from gradscope.findings import Severity


@dataclass(frozen=True)
class Moment:
    """One examination, in short; None: not measured.

    Attributes:
        step: how many steps there had been.
        verdict: healthy, warning, unhealthy or undetermined.
        total: decades from the last to the first hidden activation.
        skill: 1 - loss / loss of guessing.
        saturated: share of saturated units, mean over hidden activations.
        errors: findings that are errors.
    """

    step: int
    verdict: str
    total: float | None
    skill: float | None
    saturated: float | None
    errors: int

    @classmethod
    def of(cls, step: int, report: Report) -> Moment:
        """The numbers of a report."""
        m = report.measurements
        return cls(
            step=step,
            verdict=report.verdict.value,
            total=m.ledger.total if m.ledger is not None else None,
            skill=m.skill.value if m.skill is not None else None,
            saturated=m.hidden_saturation,
            errors=sum(f.severity is Severity.ERROR for f in report.findings),
        )

    def scalars(self) -> dict[str, float]:
        """What was measured, by name, for a logger."""
        found = {"total": self.total, "skill": self.skill, "saturated": self.saturated}
        return {k: v for k, v in found.items() if v is not None} | {"errors": float(self.errors)}


class Watch:
    """Examines a model every so many steps.

    Args:
        model: being trained. Of several processes (DistributedDataParallel) one is enough, and it
            must not be examined between a forward pass and its backward pass: the others would be
            waited for. Of a model in shards (FSDP) there is nothing to examine on one device.
        sample: what to run it on, as :func:`gradscope.inspect` takes it, readable again and again.
        every: steps from one examination to the next.
        on_report: called with the step and the report; what it raises ends the training.
        options: everything else that :func:`gradscope.inspect` takes: ``val``, ``samples``, ...

    Attributes:
        moments: the examinations so far, in short.
        report: the last one, whole; None before the first.

    Raises:
        OptionError: ``every`` or ``sample`` make no sense.
    """

    def __init__(
        self,
        model: Any,
        sample: Any,
        *,
        every: int = 100,
        on_report: Callable[[int, Report], object] | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(every, int) or every < 1:
            raise OptionError(f"must be a whole number from 1, not {every!r}", where="every")
        for name, data in (("sample", sample), ("val", options.get("val"))):
            _check_readable_again(data, name)
        self.moments: list[Moment] = []
        self.report: Report | None = None
        self._model, self._sample, self._options = model, sample, options
        self._every, self._on_report, self._steps = every, on_report, 0

    def step(self) -> Report | None:
        """One step of the training is done: after ``optimizer.step()``, or before.

        Returns:
            the report, if this was a step to examine the model at.
        """
        self._steps += 1
        return self.examine(self._steps) if self._steps % self._every == 0 else None

    def examine(self, step: int) -> Report:
        """Examine the model now.

        Args:
            step: for ``moments`` and ``on_report``.

        Raises:
            GradscopeError: the model or the sample cannot be used.
        """
        self.report = inspect(self._model, self._sample, **self._options)
        self.moments.append(Moment.of(step, self.report))
        if self._on_report is not None:
            self._on_report(step, self.report)
        return self.report


def _check_readable_again(data: Any, name: str) -> None:
    if isinstance(data, Iterator):
        hint = "Give a loader, a list of batches or arrays."
        raise OptionError("an iterator can be read only once", where=name, hint=hint)
    if getattr(data, "persistent_workers", False):
        # Such a loader has one iterator, and reading it would start the training's anew.
        hint = "Give another loader, or arrays."
        raise OptionError("a loader with persistent workers is not shared", where=name, hint=hint)
