"""``gradscope.inspect`` for programs and notebooks: the examination, as an object."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gradscope import pipeline
from gradscope.config import DataSettings, LoadSettings, ProbeSettings, Settings
from gradscope.diagnosis import Evidence, Inspection, Verdict
from gradscope.errors import OptionError
from gradscope.findings import Cause, Finding, Severity, Skipped
from gradscope.measurements import Ledger, Measurements, Skill
from gradscope.model import Given
from gradscope.optimisers import CHOICES
from gradscope.report import render
from gradscope.report.notebook import as_html
from gradscope.settings_file import find_settings

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, repr=False)
class Report:
    """What an examination found. ``print(report)`` shows it as the command does; a notebook, short.

    Attributes:
        inspection: everything: measurements, findings, diagnosis, settings.
    """

    inspection: Inspection

    @property
    def verdict(self) -> Verdict:
        """Equal to its text: healthy, warning, unhealthy or undetermined."""
        return self.inspection.diagnosis.verdict

    @property
    def summary(self) -> str:
        """The verdict in one sentence."""
        return self.inspection.diagnosis.summary

    @property
    def causes(self) -> tuple[Cause, ...]:
        """Why the gradient is lost, most important first."""
        return self.inspection.diagnosis.causes

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """The numbers that the verdict rests on."""
        return self.inspection.diagnosis.evidence

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the rules found, the severest first."""
        return self.inspection.findings

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that are errors."""
        return tuple(f for f in self.findings if f.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that are warnings."""
        return tuple(f for f in self.findings if f.severity is Severity.WARNING)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What was not measured, and why."""
        return self.measurements.skipped

    @property
    def measurements(self) -> Measurements:
        """Every number, by layer, activation and parameter."""
        return self.inspection.measurements

    @property
    def ledger(self) -> Ledger | None:
        """Decades (log10) lost from the last to the first hidden activation, entry by entry."""
        return self.measurements.ledger

    @property
    def skill(self) -> Skill | None:
        """What the model can do on labelled data, held out where there were any."""
        return self.measurements.skill

    def to_json(self) -> str:
        """The report that ``--format json`` writes: ``docs/report.schema.json``."""
        return render("json", self.inspection)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        found: dict[str, Any] = json.loads(self.to_json())
        return found

    def to_text(self, width: int = 80, *, all_layers: bool = False) -> str:
        """The report as the terminal shows it, without colour."""
        return render("terminal", self.inspection, width=width, all_layers=all_layers)

    def to_html(self) -> str:
        """The page that ``--format html`` writes: self-contained, for a browser."""
        return render("html", self.inspection)

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        n = len(self.findings)
        return f"<gradscope.Report: {self.verdict.value}, {n} finding{'' if n == 1 else 's'}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return as_html(self.inspection)


def inspect(
    model: torch.nn.Module | str | os.PathLike[str],
    sample: Any = None,
    *,
    val: Any = None,
    samples: int | None = 512,
    batch_size: int = 512,
    loss: str = "auto",
    draws: int = 4,
    mode: str = "eval",
    seed: int = 0,
    device: str | None = None,
    trial: int = 0,
    trial_optimizer: str | None = None,
    trial_lr: float | None = None,
    trial_momentum: float | None = None,
    outputs: Iterable[str] = (),
    gradients: bool = True,
    limits: Mapping[str, float] | None = None,
    standardise: bool = False,
    label_column: str | None = None,
    input_shape: Mapping[str, tuple[int, ...]] | tuple[int, ...] | None = None,
    input_values: Mapping[str, object] | None = None,
    arch: str | None = None,
    arch_args: Mapping[str, object] | None = None,
    allow: Iterable[str] = (),
    trust_model: bool = False,
    key: str | None = None,
) -> Report:
    """Examine a model: where its gradient goes, why, and whether it matters.

    A model in memory is examined where it is and left as it was: mode, gradients, buffers, hooks,
    ``requires_grad``, the state between calls and the random generators.

    Args:
        model: a module, or the path of a saved model.
        sample: an array or tensor (samples first), ``(x, y)`` with labels, arrays by the names of
            the model's inputs (``x`` and ``y`` will do), a loader or whatever yields batches, a
            callable that returns one, or a path; None makes an input up.
        val: held-out data in the same forms.
        samples: how many are run at most; None: all. Of arrays and files they are drawn with the
            labels' proportions, of a loader they are the first.
        batch_size: samples in one pass.
        loss: auto, cross-entropy, bce, mse, nll or ``MODULE:FN``.
        draws: random cotangents, a backward pass each.
        mode: eval or train.
        seed: of the samples drawn and of the cotangents: same seed, same report.
        device: where to run a model from a file; one in memory is examined where it is.
        trial: steps of an experiment on copies; 0: none.
        trial_optimizer, trial_lr, trial_momentum: what trains them: adam, adamw, sgd or rmsprop;
            None: the checkpoint's own where the file keeps it, else adam at several rates.
        outputs: names of the model's outputs to look at; none: all.
        gradients: False: saturation, dead units and weights only; nothing runs backward.
        limits: other thresholds of rules, as ``{"GS101.total": -4}``; they come before those of
            ``[tool.gradscope.rules]`` in the working directory's settings file.
        standardise: feed (x - mean) / sd of the sample.
        label_column: which column of a table is the label.
        input_shape: of the made-up input, or of the samples of a table; without the sample axis.
        input_values: arguments of ``forward`` that are no tensors, as ``{"sr": 16000}``.
        arch, arch_args: builds the model of a state_dict: ``FILE.py:factory`` and its arguments.
        allow: classes admitted in a model file.
        trust_model: run whatever a model file contains.
        key: which state_dict of a checkpoint.

    Raises:
        GradscopeError: the request cannot be served, or nothing could be measured.
    """
    samples = None if samples is None else _whole("samples", samples, 1)
    batch_size, draws = _whole("batch_size", batch_size, 1), _whole("draws", draws, 1)
    seed, trial = _whole("seed", seed, 0), _whole("trial", trial, 0)
    if mode not in ("eval", "train"):
        raise OptionError(f"must be 'eval' or 'train', not {mode!r}", where="mode")
    if trial_optimizer not in (None, *CHOICES):
        what = f"must be one of {', '.join(CHOICES)}, not {trial_optimizer!r}"
        raise OptionError(what, where="trial_optimizer")
    if trial and not gradients:
        raise OptionError("an experiment needs gradients", where="trial", hint="Leave one out.")
    file = find_settings()
    path, module = _path_or_object(model)
    data, held = _path_or_object(sample)
    val_path, val_held = _path_or_object(val)
    given = Given(module, held, val_held)
    shapes = input_shape if isinstance(input_shape, Mapping) else {"": input_shape or ()}
    settings = Settings(
        model=path if path is not None else type(model).__name__,
        load=LoadSettings(
            arch, arch_args or {}, tuple(allow), trust_model, key, dict(input_values or {})
        ),
        data=DataSettings(
            data=data,
            val=val_path,
            samples=samples,
            batch_size=batch_size,
            seed=seed,
            input_shape={k: tuple(v) for k, v in shapes.items() if v},
            label_column=label_column,
            standardise=standardise,
        ),
        probe=ProbeSettings(
            loss=loss,
            draws=draws,
            mode=mode,
            device=_device(module, device),
            outputs=tuple(outputs),
            trial=trial,
            trial_optimizer=trial_optimizer,
            trial_rate=trial_lr,
            trial_momentum=trial_momentum,
            gradients=gradients,
        ),
        rules=file.rules,
        rules_from=file.path,
        limits=tuple(f"{name}={value}" for name, value in (limits or {}).items()),
        in_memory=not given.is_empty,
    )
    return Report(pipeline.inspect(settings, given=given))


def _path_or_object(value: Any) -> tuple[str | None, Any]:
    """(path, None) or (None, what is in memory)."""
    if isinstance(value, str | os.PathLike):
        return os.fsdecode(value), None
    return None, value


def _whole(name: str, value: Any, least: int) -> int:
    """A whole number of any kind, NumPy's too, as Python's own, which JSON knows."""
    try:
        found = operator.index(value)
    except TypeError:
        found = least - 1
    if found < least or isinstance(value, bool):
        raise OptionError(f"must be a whole number from {least}, not {value!r}", where=name)
    return found


def _device(module: torch.nn.Module | None, wanted: str | None) -> str:
    """Where to run."""
    parameters = getattr(module, "parameters", None)
    if parameters is None:
        return wanted or "cpu"
    own = str(next((p.device for p in parameters()), "cpu"))
    if wanted not in (None, own):
        hint = "A model in memory is examined where it is: leave device out, or move the model."
        raise OptionError(f"the model is on {own}, not on {wanted}", where="device", hint=hint)
    return own
