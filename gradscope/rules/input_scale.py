"""GS501: the scale of the input, not of the weights, saturates the first layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

from gradscope.attribution import (
    INPUT_RMS,
    SATURATED_SITE,
    is_entry,
    is_far_behind,
    saturation_cause,
    weights_feeding,
)
from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import (
    Feature,
    GradientStats,
    InputStats,
    LedgerEntry,
    Measurements,
    Role,
    Skill,
    State,
)
from gradscope.places import listed
from gradscope.rules.base import STANDARDISE, Remedy, Rule, Threshold
from gradscope.rules.examples import measured, parameter, poor_skill, site


class InputScale(Rule):
    """Names the columns whose scale it is."""

    code = "GS501"
    name = "input-scale"
    summary = "Input features are so large, or so far from 0, that the first layer cannot use them."
    explanation = (
        "Compared is the root mean square of each input, and of its columns or channels, with 1, "
        "and its mean with its standard deviation. A warning where the first layer's activation "
        "is saturated and the input exceeds the weights' own size (init_ratio): bounded "
        "activations often learn from large inputs all the same, if a step of the optimiser times "
        "the input does not throw them from one end to the other. Where it does, where a model "
        "that has learned something knows less than half of what a plain learner does, where the "
        "first activation is a gate or does not saturate and the input is far larger still, or "
        "where the mean is far beyond the spread, it is an error if labelled data show that the "
        "model does not work, else information. Past branches with normalisations or saturated "
        "activations a large input may reach the last layer by the skips, and drown what the "
        "branches add: a warning, and where the first layer is saturated an error for a regression "
        "whose squared error is many times that of guessing, for its gradient grows with the "
        "outputs, as that of a cross-entropy does not. Raw data of a moderate size are a warning "
        "at most: adaptive optimisers learn from them."
    )
    thresholds: ClassVar = {
        "rms": Threshold(
            INPUT_RMS, "root mean square", "usual weights then saturate 55 % of a tanh"
        ),
        "large": Threshold(
            100.0, "root mean square", "at 70 three families of four learned all, at 200 none"
        ),
        "bounded": Threshold(
            3000.0, "root mean square", "1000 before a bounded unit: 5 of 18 learn; 4000: none of 6"
        ),
        "column": Threshold(10.0, "ratio", "to the median column: named by itself"),
        "offset": Threshold(
            10.0,
            "mean over sd",
            "pixels 0..255 have 1; at 10 to 20 four families of six did not learn",
        ),
        "saturated": Threshold(SATURATED_SITE, "share", "of the first layer's activation"),
        "thrown": Threshold(
            10.0,
            "squared error over guessing's",
            "49 of 50 regressions beyond that stayed stuck, one in part",
        ),
    }
    causes = (Cause.LARGE_INPUTS,)
    remedy = Remedy(
        "Standardise the input: subtract each column's mean and divide by its standard deviation, "
        "measured on the training data; or put a batch norm first.",
        STANDARDISE,
    )
    eased = True

    def check(self, measured: Measurements) -> Iterator[Finding]:
        limit = self.limit("rms")
        saturated = self._saturated(measured)
        for given in measured.inputs:
            if given.rms is None or given.rms <= limit:
                continue
            offset = _offset(given) > self.limit("offset")
            unbounded = _large_at_entry(measured, limit)
            carried = _read_by_head(measured) if _has_way_around(measured) else 0.0
            if saturated is None and not offset and not unbounded and carried <= limit:
                continue
            grave = offset or (unbounded and given.rms > self.limit("large"))
            stuck = given.rms > self.limit("bounded") or is_far_behind(measured)
            stuck = stuck or (carried > limit and self._thrown(measured))
            grave = grave or (saturated is not None and stuck)
            severity = Severity.WARNING
            if saturated is None or grave:
                severity = self.graver(measured, Severity.INFORMATION)
                severity = severity if grave else severity.milder
            where, how = self._columns(given)
            message = f"{how}root mean square {given.rms:.3g} (limit {limit:.3g})"
            if saturated is not None:
                message += f"; saturates {saturated:.0%} of the first layer"
            if carried > limit:
                message += f"; by its skips the last layer reads {carried:.3g}"
            yield self.finding(
                severity, where, message, value=given.rms, threshold=limit,
                cause=Cause.LARGE_INPUTS, hinges=grave, about=given.name,
            )  # fmt: skip

    def _saturated(self, measured: Measurements) -> float | None:
        """Saturated share of the entry, where the input's scale is to blame."""
        shares = [
            s.saturated_fraction
            for s in measured.sites
            if s.role in (Role.HIDDEN, Role.GATE)
            and is_entry(measured, s)
            and s.saturated_fraction is not None
            and saturation_cause(measured, s) is Cause.LARGE_INPUTS
        ]
        share = max(shares, default=0.0)
        return share if share > self.limit("saturated") else None

    def _thrown(self, measured: Measurements) -> bool:
        """Whether a regression's loss is many times that of guessing the mean."""
        skill = measured.skill
        if skill is None or skill.value is None or skill.accuracy_skill is not None:
            return False
        return skill.loss_kind == "mse" and 1.0 - skill.value > self.limit("thrown")

    def _columns(self, given: InputStats) -> tuple[str, str]:
        """(place, words before the whole input's root mean square): single columns where the others
        are of another scale."""
        typical = given.typical_rms or 0.0
        large = [f for f in given.largest if _rms(f) > self.limit("column") * max(typical, 1e-9)]
        if not large or typical > self.limit("rms"):
            shift = abs(given.mean or 0.0) > 0.9 * (given.rms or 0.0)
            return given.name, f"mean {given.mean:.3g}, " if shift else "all columns, "
        first = large[0]
        names = listed([str(f.index) for f in large], 6)
        where = f"[{names}]" if len(large) > 1 else names
        text = f"column {first.index}: mean {first.mean:.3g}, sd {first.sd:.3g}; all columns: "
        return f"{given.name}[:, {where}]", text

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        usual = InputStats("x", 4, 1.0, 0.0, 1.0, 0.0)
        large = InputStats("x", 4, 140.0, 90.0, 140.0, 0.0)
        return (
            measured(site("0/tanh"), inputs=(usual,)),
            # a normalisation comes first: nothing large arrives
            measured(site("0/tanh", pre_activation_rms=1.0), inputs=(large,)),
        )

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        full = site("0/tanh", saturated_fraction=0.95, pre_activation_rms=80.0, shrink=150.0)
        raw = InputStats("x", 4, 140.0, 90.0, 140.0, 0.0)
        column = InputStats("x", 4, 500.0, 0.0, 1.0, 0.0, (Feature(3, 0.0, 1000.0),))
        shifted = InputStats("x", 4, 1000.0, 999.9995, 1000.0, 0.0)
        relu = site("0/relu", kind="relu", saturated_fraction=None, pre_activation_rms=80.0)
        weights = (parameter("0.weight"),)
        skip = LedgerEntry("0/tanh", "0/tanh", "tanh", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, bypass=True)
        head = parameter("9.weight", gradient=GradientStats(State.VALUE, 64, 200.0, 25.0, 90.0))
        around: dict[str, Any] = {
            "inputs": (raw,),
            "parameters": (*weights, head),
            "entries": (skip, skip),
        }
        carried = (site("0/relu", kind="relu", saturated_fraction=None, pre_activation_rms=1.0),)
        thrown = Skill(-33.0, 2.0, 34.0, "mse", "real targets", None, True, 450)
        return (
            measured(full, inputs=(raw,), parameters=weights),
            measured(full, inputs=(column,), parameters=weights),
            measured(relu, inputs=(raw,), parameters=weights),
            measured(relu, inputs=(raw,), parameters=weights, skill=poor_skill()),
            measured(full, inputs=(shifted,), parameters=weights, skill=poor_skill()),
            measured(*carried, skill=poor_skill(), **around),
            measured(full, skill=thrown, **around),
        )


def _rms(feature: Feature) -> float:
    return math.hypot(feature.mean or 0.0, feature.sd or 0.0)


def _offset(given: InputStats) -> float:
    """|mean| over the spread around it."""
    mean, rms = abs(given.mean or 0.0), given.rms or 0.0
    spread = math.sqrt(max(rms**2 - mean**2, 0.0))
    return mean / spread if spread else 0.0


def _has_way_around(measured: Measurements) -> bool:
    """Whether every hidden activation on the way stands in a branch that a skip leads around."""
    entries = measured.ledger.entries if measured.ledger is not None else ()
    return bool(entries) and all(e.bypass for e in entries)


def _read_by_head(measured: Measurements) -> float:
    """Root mean square of what the last matrix reads, by its gradient: under unit cotangents at the
    output that is as large as what is multiplied with them. 0 where it is not known."""
    inner = {name for s in measured.sites for name in s.parameters}
    heads = [p for p in measured.parameters if len(p.shape) == 2 and p.fan_in]
    last = heads[-1] if heads else None
    if last is None or last.name in inner or last.gradient is None:
        return 0.0
    return (last.gradient.norm or 0.0) / math.sqrt(last.fan_in or 1)


def _large_at_entry(measured: Measurements, limit: float) -> bool:
    """Whether pre-activations as large as the input alone makes them reach a gate, or an activation
    that does not saturate."""
    first = next(iter(measured.sites), None)
    if first is None or first.pre_activation_rms is None:
        return False
    if first.saturated_fraction is not None and first.role is not Role.GATE:
        return False
    ratio = max(weights_feeding(measured, first), default=1.0)
    return first.pre_activation_rms > limit * max(ratio, 1.0)
