"""GS207: attention that has made up its mind on one key, everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import Attention, Measurements
from gradscope.places import listed
from gradscope.rules.base import TRIAL, Remedy, Rule, Threshold
from gradscope.rules.examples import measured, poor_skill, site


class SaturatedAttention(Rule):
    """Compares the share of saturated rows of attention weights, over the whole model."""

    code = "GS207"
    name = "saturated-attention"
    summary = "Nearly all attention weights lie on a single key: queries and keys learn nothing."
    explanation = (
        "A row of attention weights is saturated where one key takes nearly all of it: the "
        "relative derivative (1 - sum p^2) / (1 - 1 / n) is below a tenth, and no gradient comes "
        "through to queries and keys. Heads that work often look at one key, so this is "
        "information; where it is so nearly everywhere and labelled data show that the model does "
        "not work, an error: queries and keys are too large."
    )
    thresholds: ClassVar = {
        "share": Threshold(
            0.7, "share of rows", "not learned yet: up to .1; x10 .78, U[-10,10] .92; working: .5"
        ),
    }
    causes = (Cause.LARGE_PARAMETERS,)
    remedy = Remedy(
        "Divide the weights of queries and keys until the attention scores have a root mean square "
        "of about 1, or normalise queries and keys.",
        TRIAL,
    )
    eased = True

    def check(self, measured: Measurements) -> Iterator[Finding]:
        limit, every = self.limit("share"), measured.attention
        rows = sum(a.rows for a in every)
        if not rows:
            return
        share = sum(a.rows * a.saturated_fraction for a in every) / rows
        if share <= limit:
            return
        severity = self.graver(measured, Severity.INFORMATION)
        yield self.finding(
            severity, listed([a.layer for a in every]),
            f"{share:.0%} of the rows of weights on a single key (limit {limit:.0%})",
            value=share, threshold=limit, about="model",
            cause=Cause.LARGE_PARAMETERS if severity is Severity.ERROR else None,
        )  # fmt: skip

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        return (measured(site("0/gelu"), attention=(_SHARP, _SOFT)), measured(site("0/gelu")))

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        sharp = measured(site("0/gelu"), attention=(_SHARP, _SHARP))
        return (
            sharp,
            measured(site("0/gelu"), attention=(_SHARP, _SHARP), skill=poor_skill()),
        )


_SHARP = Attention("encoder.layers.0.self_attn", 4000, 10.0, 0.97, 0.02)
_SOFT = Attention("encoder.layers.1.self_attn", 4000, 10.0, 0.05, 0.8)
