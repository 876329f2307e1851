"""Which power of a scale each parameter takes so that the scale passes through a model exactly.

Let every number of a model be alpha^s times what it is to be. A product adds the s of its factors,
a sum asks for the same s on all sides, what is not homogeneous asks for 0. These are linear
equations in the s of the parameters, and in switches: 1 where a scale is folded, else 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

Name = str
Sum = Mapping[Name, Fraction]
"""A linear sum of unknowns: coefficient by name."""

NOTHING: Sum = {}


def plus(one: Sum, other: Sum, factor: Fraction | int = 1) -> Sum:
    """one + factor * other."""
    found = dict(one)
    for name, value in other.items():
        found[name] = found.get(name, Fraction(0)) + factor * value
        if not found[name]:
            del found[name]
    return found


def times(one: Sum, factor: Fraction | int) -> Sum:
    """factor * one."""
    return {n: factor * v for n, v in one.items()} if factor else {}


@dataclass
class _Row:
    sum: dict[Name, Fraction]
    why: frozenset[str]


@dataclass(frozen=True)
class Solution:
    """Powers of the scale.

    Attributes:
        powers: by unknown; those that are not there are 0.
        switched: the switches that are 1.
        shares: what each of these adds to which powers.
        why: for each other switch, what stands in its way.
    """

    powers: Mapping[Name, Fraction]
    switched: frozenset[Name]
    shares: Mapping[Name, Sum]
    why: Mapping[Name, tuple[str, ...]]


@dataclass
class Equations:
    """Equations sum = 0, each with what asks for it.

    Attributes:
        switches: unknowns that may be 0 or 1, best 1.
    """

    switches: list[Name] = field(default_factory=list)
    rows: list[_Row] = field(default_factory=list)

    def add(self, equation: Sum, *why: str) -> None:
        """sum = 0; ``why`` in words, or nothing where it is a matter of course."""
        if equation:
            self.rows.append(_Row(dict(equation), frozenset(why)))

    def solve(self) -> Solution:
        """With as many switches at 1 as the equations allow; unknowns that are free are 0."""
        order = list(dict.fromkeys(n for row in self.rows for n in row.sum))
        rank = {n: (n in self.switches, i) for i, n in enumerate(order)}
        pivots = _eliminated(self.rows, rank)
        switched, why = self._switched(pivots)
        powers: Sum = {}
        shares: dict[Name, Sum] = dict.fromkeys(switched, NOTHING)
        for name, row in pivots.items():
            if name in self.switches:
                continue
            for switch in row.sum.keys() & switched:
                share = {name: -row.sum[switch]}
                shares[switch] = plus(shares[switch], share)
                powers = plus(powers, share)
        return Solution(powers, frozenset(switched), shares, why)

    def _switched(
        self, pivots: Mapping[Name, _Row]
    ) -> tuple[set[Name], dict[Name, tuple[str, ...]]]:
        switched = set(self.switches)
        why: dict[Name, tuple[str, ...]] = {}
        among = [row for name, row in pivots.items() if name in self.switches]
        changed = True
        while changed:
            changed = False
            for row in among:
                if sum(v for n, v in row.sum.items() if n in switched):
                    for name in row.sum.keys() & switched:
                        why[name] = tuple(sorted(row.why))
                    switched -= row.sum.keys()
                    changed = True
        return switched, why


def _eliminated(rows: Iterable[_Row], rank: Mapping[Name, tuple[bool, int]]) -> dict[Name, _Row]:
    """Reduced rows by the unknown that each tells, switches told by switches alone."""
    pivots: dict[Name, _Row] = {}
    holders: dict[Name, set[Name]] = {}  # in the rows of which pivots an unknown stands
    for given in rows:
        row = _Row(dict(given.sum), given.why)
        for name in list(row.sum):
            if name in pivots and name in row.sum:
                _clear(row, pivots[name], name)
        if not row.sum:
            continue
        pivot = min(row.sum, key=lambda n: rank[n])
        factor = row.sum[pivot]
        row.sum = {n: v / factor for n, v in row.sum.items()}
        for other in list(holders.get(pivot, ())):
            if pivot in pivots[other].sum:
                _clear(pivots[other], row, pivot)
                for name in pivots[other].sum:
                    holders.setdefault(name, set()).add(other)
        pivots[pivot] = row
        for name in row.sum:
            holders.setdefault(name, set()).add(pivot)
    return pivots


def _clear(row: _Row, by: _Row, name: Name) -> None:
    factor = row.sum[name]
    row.sum = dict(plus(row.sum, by.sum, -factor))
    row.why |= by.why
