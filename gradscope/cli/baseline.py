"""The baseline of a check: where it is read, and how it is renewed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

from gradscope import files
from gradscope.checking import Baseline, CheckResult, Entry, read_baseline
from gradscope.checking.baseline import accepted, as_text, key_of, pruned
from gradscope.cli.layers import Layer
from gradscope.errors import OptionError


@dataclass(frozen=True)
class BaselineFile:
    """A baseline and what is to be done with it.

    Attributes:
        path: of the file; None: there is no baseline.
        content: as it was read; empty if it is to be written for the first time.
        write: accept all that is found.
        prune: take out what is fixed.
        read_from: the file, if it was read.
    """

    path: str | None
    content: Baseline
    write: bool = False
    prune: bool = False
    read_from: str | None = None

    @property
    def written_to(self) -> str | None:
        """The file, if it is to be written."""
        return self.path if self.write or self.prune else None

    def entries(self, model: str) -> tuple[Entry, ...]:
        """Known findings of a model."""
        return () if self.path is None else self.content.models.get(key_of(model, self.path), ())

    def check_target(self, inputs: Iterable[str | None]) -> None:
        """Refuse, before any work, a file that cannot be written; the old baseline may be."""
        if self.written_to is not None:
            others = [name for name in inputs if name != self.read_from]
            files.check_target(self.written_to, inputs=others, option="--baseline")

    def renew(self, result: CheckResult) -> CheckResult:
        """The result, with a note on what was written or could be pruned."""
        if self.path is None:
            return result
        notes = [*result.notes, *self._missing()]
        if self.written_to is not None:
            renew = accepted if self.write else pruned
            content = renew(self.content, result.models, self.path)
            files.write_atomic(self.path, as_text(content).encode(), option="--baseline")
            count = sum(map(len, content.models.values()))
            notes.append(f"{self.path} now knows {count} finding{'' if count == 1 else 's'}")
        elif result.summary.fixed:
            notes.append("what is fixed leaves the baseline with --prune-baseline")
        return replace(result, notes=tuple(notes))

    def _missing(self) -> Iterable[str]:
        """Models of the baseline whose file is gone."""
        assert self.path is not None
        folder = os.path.dirname(self.path)
        for key in sorted(self.content.models):
            if not self.prune and not os.path.lexists(os.path.join(folder, key)):
                yield f"the baseline knows '{key}', which does not exist"


def baseline_file(run: Layer, write: bool, prune: bool) -> BaselineFile:
    """The baseline that the options name.

    Raises:
        OptionError: options that contradict one another, or have no file.
        BaselineError: the file is no baseline.
    """
    path = run["baseline"].value
    option = "--write-baseline" if write else "--prune-baseline"
    if write and prune:
        what = "contradicts --prune-baseline: one accepts, the other tightens"
        raise OptionError(what, where="--write-baseline", hint="Leave one of them out.")
    if path is None:
        if write or prune:
            hint = "Name the file: --baseline gradscope-baseline.json."
            raise OptionError("needs --baseline", where=option, hint=hint)
        return BaselineFile(None, Baseline())
    name = str(path)
    if write and not os.path.lexists(name):
        return BaselineFile(name, Baseline(), write, prune)
    return BaselineFile(name, read_baseline(name), write, prune, name)
