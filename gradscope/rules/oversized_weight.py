"""GS301: weights so large that they saturate what they feed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from gradscope.attribution import (
    FAR_TOO_LARGE,
    SATURATED_ALONE,
    SATURATED_MODEL,
    bounded_hidden,
    is_at_chance,
    recurrent_matrices,
    saturation_cause,
    sizes,
    typical_ratio,
)
from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import Measurements, Parameter, Site
from gradscope.places import listed
from gradscope.rules.base import TRIAL, Remedy, Rule, Threshold
from gradscope.rules.examples import at_chance, measured, parameter, poor_skill, site, weight


class OversizedWeight(Rule):
    """Judges weights by their effect: a large number alone is none."""

    code = "GS301"
    name = "oversized-weight"
    summary = "A layer's weights are so large that they saturate the activation behind it."
    explanation = (
        "Compared is the shrink that the layer needs: the least alpha for which the relative "
        "derivative of z / alpha is 0.8 on average, measured from the pre-activations z. "
        "init_ratio (root mean square over that of a usual start), the largest weight and the "
        "spectral norm are shown as evidence. A constant filter bank, or large weights before a "
        "ReLU or a normalisation, are nothing to worry about. A warning where the activation is "
        "saturated like GS201's, or where labelled data show nothing but chance and the weights "
        "are far larger than usual as well; else information. Where labelled data show that the "
        "model does not work, weights of which a good part is far too large are an error whatever "
        "they feed: nothing saturates behind a ReLU or a normalisation, but no step of a usual "
        "size moves them. In a logistic network four times as large is usual."
    )
    thresholds: ClassVar = {
        "shrink": Threshold(
            5.0, "factor", "a tanh of normal z of sd 2.7; Xavier starts need 1 to 2, U[-10,10] 60"
        ),
        "saturated": Threshold(SATURATED_MODEL, "share", "mean over the model, as GS201's model"),
        "typical": Threshold(
            FAR_TOO_LARGE, "ratio", "healthy nets up to 2.2 (logistic: of 4); a start x6 from 3.4"
        ),
        "part": Threshold(
            0.33, "share of matrices", "half of a network x20; one layer alone is no such part"
        ),
        "alone": Threshold(SATURATED_ALONE, "share", "of one activation, as GS201's site"),
    }
    causes = (Cause.LARGE_PARAMETERS,)
    remedy = Remedy(
        "Divide each layer's weights and biases by the shrink that it needs (gradscope fix "
        "measures it), layer by layer from the first, then train on with a small L2 (1e-4).",
        TRIAL,
    )
    eased = True

    def check(self, measured: Measurements) -> Iterator[Finding]:
        yield from self._saturating(measured)
        typical, limit = typical_ratio(measured), self.limit("typical")
        if typical is None or not measured.heads:
            return
        every = sizes(measured)
        large = [n for n in sorted(every, key=lambda n: -every[n]) if every[n] > limit]
        part = self._is_part(measured, every, large)
        if typical <= limit and not part:
            return
        severity = self.graver(measured, Severity.INFORMATION)
        value = typical if typical > limit else every[large[-1]]
        how = "in the median" if typical > limit else f"and more in {len(large)} of {len(every)}"
        message = (
            f"{value:.1f} x the usual size {how} (limit {limit:.1f}): "
            "steps of the optimiser are small beside such weights"
        )
        known = typical > limit or severity is Severity.ERROR
        yield self.finding(
            severity, listed(large), message, value=value, threshold=limit, about="model",
            cause=Cause.LARGE_PARAMETERS if known else None, hinges=typical > limit,
        )  # fmt: skip

    def _is_part(
        self, measured: Measurements, every: Mapping[str, float], large: Sequence[str]
    ) -> bool:
        """Whether a good part of the matrices is far too large; those from one time step to the
        next are left to GS102, which sees what they do."""
        kept = every.keys() - recurrent_matrices(measured)
        mine = [n for n in large if n in kept]
        return len(mine) > 1 and len(mine) >= self.limit("part") * len(kept)

    def _saturating(self, measured: Measurements) -> Iterator[Finding]:
        limit, mean = self.limit("shrink"), measured.hidden_saturation or 0.0
        parameters = {p.name: p for p in measured.parameters}
        for found in bounded_hidden(measured):
            alpha = found.shrink
            if alpha is None or alpha < limit:
                continue
            if saturation_cause(measured, found) is not Cause.LARGE_PARAMETERS:
                continue
            blamed = _largest([parameters[n] for n in found.parameters if n in parameters])
            if blamed is None:
                continue
            share = found.saturated_fraction or 0.0
            widespread = mean > self.limit("saturated")
            full = share > self.limit("saturated" if widespread else "alone")
            full = full or (
                is_at_chance(measured) and _size(measured, blamed) > self.limit("typical")
            )
            yield self.finding(
                Severity.WARNING if full else Severity.INFORMATION, blamed.name,
                self._message(blamed, found, alpha), value=alpha, threshold=limit,
                cause=Cause.LARGE_PARAMETERS, about=found.id,
            )  # fmt: skip

    def _message(self, parameter: Parameter, site: Site, alpha: float) -> str:
        w, limit = parameter.weight, self.limit("shrink")
        evidence = [f"which saturates {site.saturated_fraction or 0.0:.0%} of {site.id}"]
        if w.init_ratio is not None:
            evidence.append(f"weights {w.init_ratio:.1f} x the usual size")
        if w.spectral_norm is not None:
            evidence.append(f"spectral norm {w.spectral_norm:.3g}")
        if w.max_abs is not None:
            evidence.append(f"max |w| {w.max_abs:.3g}")
        return f"z {alpha:.1f} x too large (limit {limit:.1f}), {', '.join(evidence)}"

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        large = weight(rms=6.0, max_abs=10.0, spectral_norm=60.0, init_ratio=17.0)
        usual = (parameter("1.weight"), parameter("2.weight"))
        bank = measured(site("0/tanh"), parameters=(parameter("0.weight", weight=large), *usual))
        return (bank, measured(site("0/tanh"), parameters=(parameter("0.weight"),)))

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        large = weight(rms=6.0, max_abs=10.0, spectral_norm=60.0, init_ratio=17.0)
        full = site("0/tanh", saturated_fraction=0.95, pre_activation_rms=20.0, shrink=36.0)
        half = site("0/tanh", saturated_fraction=0.6, pre_activation_rms=4.0, shrink=7.0)
        weights = (parameter("0.weight", weight=large),)
        usual = tuple(parameter(f"{n}.weight") for n in range(3))
        mixed = (*usual, *(parameter(f"{n}.weight", weight=large) for n in (3, 4)))
        return (
            measured(full, parameters=weights),
            measured(half, parameters=weights),
            measured(half, parameters=(*usual, *weights), skill=at_chance()),
            measured(site("0/relu", kind="relu"), parameters=weights, skill=poor_skill()),
            measured(site("0/relu", kind="relu"), parameters=mixed),
            measured(site("0/relu", kind="relu"), parameters=mixed, skill=poor_skill()),
        )


def _size(measured: Measurements, blamed: Parameter) -> float:
    """Over the usual size; 0 where there is none to compare with."""
    return sizes(measured).get(blamed.name, 0.0)


def _largest(feeding: list[Parameter]) -> Parameter | None:
    """The matrix of the largest init_ratio; where only vectors feed it, the largest of them."""
    return max(
        feeding, key=lambda p: (p.weight.init_ratio or 0.0, p.weight.max_abs or 0.0), default=None
    )
