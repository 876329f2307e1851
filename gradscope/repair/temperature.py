"""Temperature: queries and keys of saturated attention scaled down.

Per attention, r = RMS of the logits q k^T / sqrt(d), centred over the keys, which is what a softmax
sees. Where r > 2, what makes q and what makes k, weights and biases, are multiplied by sqrt(2 / r)
each: rows of a packed projection, projections of their own, or the gains of norms behind them. The
order of the keys stays, so most of what was learned does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from gradscope.model import Batch
from gradscope.repair.attending import Attending, Meeting, entries
from gradscope.repair.base import Case, Remedy, Result, Tensors
from gradscope.treatment import Placed

WORKING = 2.0
"""Key-centred logits of attention that has learned: 1.4 to 2.8 in six encoders on digits. Cooled to
1 after queries and keys were multiplied by 10, these lost up to .035 of what they could; cooled to
2, .005 at most."""

NEAR = 1.5
"""Times the aim within which the logits must be afterwards: or what was scaled does not make them,
as before a norm."""

_FIRST = 16  # samples that show what feeds what


@dataclass
class _Attention:
    """One attention over all of its calls."""

    square: float = 0.0
    count: float = 0.0
    masks: dict[str, torch.Tensor] = field(default_factory=dict)
    why: str | None = None

    @property
    def spread(self) -> float:
        """Root mean square of its logits."""
        return float((self.square / max(self.count, 1.0)) ** 0.5)


class Temperature(Remedy):
    """Attention of any code whose queries and keys are made by parameters of its own."""

    name: ClassVar[str] = "temperature"
    summary: ClassVar[str] = "queries and keys of saturated attention scaled down"

    def requires(self, case: Case) -> str | None:
        """An attention."""
        return None if _seen(case, {}, first=True) else "no attention was found"

    def apply(self, case: Case) -> Result:
        """In the order of the model, each after those before it."""
        changed: dict[str, torch.Tensor] = {}
        said: list[str] = []
        places: list[Placed] = []
        for key in _seen(case, {}, first=True):
            where = _where(key)
            found = _seen(case, changed)[key]
            r = found.spread
            if r <= WORKING:
                continue
            why, more = found.why, {}
            if why is None:
                more = _cooled(case, changed, found.masks, (WORKING / r) ** 0.5)
                after = _seen(case, {**changed, **more})[key].spread
                if not after < NEAR * WORKING:
                    why = f"its logits would still be {after:.3g} rms: a norm undoes the scale"
            if why is not None:
                said.append(f"{where} left as it is: {why}")
                places.append(Placed(where, "left", why))
                continue
            changed |= more
            said.append(f"{where}: logits of {r:.3g} rms to {WORKING:g}")
            factor = f"{(WORKING / r) ** 0.5:.3g} into {', '.join(sorted(more))}"
            places.append(Placed(where, "folded", factor))
        return Result(changed, tuple(said), tuple(places))


Key = tuple[frozenset[str], frozenset[str]]


def _where(key: Key) -> str:
    """The module of the projections, or their names."""
    names = sorted(key[0] | key[1])
    owners = {n.rpartition(".")[0] or n for n in names}
    if len(owners) == 1:
        return owners.pop()
    parents = {o.rpartition(".")[0] for o in owners}
    return parents.pop() if len(parents) == 1 and "" not in parents else ", ".join(sorted(owners))


def _cooled(case: Case, changed: Tensors, masks: Tensors, factor: float) -> dict[str, torch.Tensor]:
    """Entries that make queries or keys times a factor, each once."""
    found = {}
    for name, mask in masks.items():
        value = changed[name] if name in changed else case.tensors[name].detach()
        found[name] = torch.where(mask, value * factor, value)
    return found


def _seen(case: Case, changed: Tensors, first: bool = False) -> dict[Key, _Attention]:
    """Attentions by what feeds them, in their order, over training samples."""
    found: dict[Key, _Attention] = {}
    every = dict(case.trainee.module.named_parameters())
    case.trainee.set_training(False)
    with case.with_tensors(changed):
        for batch in _batches(case, first):
            with torch.enable_grad(), Attending(every) as watch:
                case.trainee.call(batch)
            for meeting in watch.meetings:
                if not meeting.fed_by:
                    continue
                key = meeting.query.feeds, meeting.key.feeds
                mine = found.setdefault(key, _Attention())
                mine.square, mine.count = mine.square + meeting.square, mine.count + meeting.count
                if not mine.masks and mine.why is None:
                    _learn(case, mine, meeting)
    return found


def _batches(case: Case, first: bool) -> Iterator[Batch]:
    if first:
        few = case.data.few(_FIRST)
        yield from [] if few is None else [few]
        return
    yield from case.data.some()


def _learn(case: Case, mine: _Attention, meeting: Meeting) -> None:
    """What makes the queries and the keys, or why that cannot be scaled."""
    fixed = sorted(meeting.fed_by - set(case.tensors))
    if fixed:
        mine.why = f"{fixed[0]} is to stay as it is"
        return
    query, key = (entries(fed, case.tensors) for fed in (meeting.query, meeting.key))
    if not query or not key:
        mine.why = "its queries or its keys have no parameters of their own"
        return
    for part in (query, key):
        for name, mask in part.items():
            mine.masks[name] = mine.masks[name] | mask if name in mine.masks else mask
    values = entries(meeting.value, case.tensors) if meeting.value is not None else {}
    both = [n for n, m in values.items() if n in mine.masks and bool((m & mine.masks[n]).any())]
    if both:
        mine.masks, mine.why = {}, f"its values come from {both[0]} as well"
