"""Everything that was measured, as plain frozen numbers. Imports neither torch nor numpy.

A number that could not be measured is ``None``, and a :class:`~gradscope.findings.Skipped` says
why; it is never 0. A *decade* is a factor of ten: gains in decades are log10.
Joined by stable ids: a site by :attr:`Site.id`, a parameter by :attr:`Parameter.name`, a layer by
:attr:`Layer.name`.
"""

from __future__ import annotations

from dataclasses import dataclass

from gradscope.findings import Skipped
from gradscope.measurements.attention import Attention
from gradscope.measurements.histograms import Histogram, Octaves
from gradscope.measurements.ledger import Head, Ledger, LedgerEntry, LocalEntry, TimeLedger
from gradscope.measurements.parameters import GradientStats, Layer, Outlier, Parameter, WeightStats
from gradscope.measurements.run import (
    Feature,
    FirstNonfinite,
    InputStats,
    ModelInfo,
    Parity,
    RunInfo,
    SampleInfo,
)
from gradscope.measurements.scores import Arm, Reference, Skill, Trial
from gradscope.measurements.sites import Site, TimeStep, Units
from gradscope.measurements.states import Role, State

__all__ = [
    "Arm",
    "Attention",
    "Feature",
    "FirstNonfinite",
    "GradientStats",
    "Head",
    "Histogram",
    "InputStats",
    "Layer",
    "Ledger",
    "LedgerEntry",
    "LocalEntry",
    "Measurements",
    "ModelInfo",
    "Octaves",
    "Outlier",
    "Parameter",
    "Parity",
    "Reference",
    "Role",
    "RunInfo",
    "SampleInfo",
    "Site",
    "Skill",
    "State",
    "TimeLedger",
    "TimeStep",
    "Trial",
    "Units",
    "WeightStats",
]


@dataclass(frozen=True)
class Measurements:
    """Everything that was measured of one model on one sample.

    ``heads[0]`` is the head that the verdict reads. Empty ``heads`` means that no gradient was
    measured: then only ``parameters`` speak (a state_dict without its architecture), or also
    ``sites``, if the model was :attr:`was_run`.
    ``skill`` is that of the held-out data, if there are any, and ``sample_skill`` then that of the
    sample. ``reference`` is measured only where the verdict may depend on it.
    """

    model: ModelInfo
    sample: SampleInfo
    run: RunInfo
    heads: tuple[Head, ...] = ()
    layers: tuple[Layer, ...] = ()
    sites: tuple[Site, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    skill: Skill | None = None
    sample_skill: Skill | None = None
    reference: Reference | None = None
    trial: Trial | None = None
    skipped: tuple[Skipped, ...] = ()
    inputs: tuple[InputStats, ...] = ()
    first_nonfinite: FirstNonfinite | None = None
    attention: tuple[Attention, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all was measured."""
        return not (self.heads or self.sites or self.parameters)

    @property
    def ledger(self) -> Ledger | None:
        """The ledger of the first head."""
        return self.heads[0].ledger if self.heads else None

    @property
    def was_run(self) -> bool:
        """Whether samples were run; else there are only weights."""
        return self.sample.samples > 0

    @property
    def hidden_saturation(self) -> float | None:
        """``sat`` of the model: mean saturated fraction over its hidden bounded sites."""
        shares = [
            s.saturated_fraction
            for s in self.sites
            if s.role is Role.HIDDEN and s.saturated_fraction is not None
        ]
        return sum(shares) / len(shares) if shares else None
