"""Which reports of a check go where: ``--format`` to stdout, ``--output FORMAT:PATH`` to files."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gradscope.checking import CheckResult
from gradscope.cli.output import canvas, emit
from gradscope.errors import OptionError
from gradscope.files import check_target
from gradscope.report import CHECK_FORMATS, Canvas, check_format


@dataclass(frozen=True)
class Reports:
    """``printed``: formats on stdout, in this order. ``written``: (format, file)."""

    printed: tuple[str, ...]
    written: tuple[tuple[str, str], ...]

    def write(self, result: CheckResult) -> None:
        """Render and write them all; files first, so that a closed stdout loses none."""
        for name, target in self.written:
            emit(_rendered(name, result, target), target, "--output")
        for name in self.printed:
            emit(_rendered(name, result, None), None)


def planned(
    formats: Sequence[str], outputs: Iterable[str], inputs: Sequence[str | None]
) -> Reports:
    """The reports that were asked for.

    Args:
        formats: of ``--format``; those that are printed.
        outputs: of ``--output``, as FORMAT:PATH.
        inputs: of the run, none of which may be written to.

    Raises:
        OptionError: a format that does not exist, or two documents on one stream.
        OutputError: a file that cannot be written.
    """
    printed = tuple(dict.fromkeys(_known(name, "--format") for name in formats))
    documents = [name for name in printed if check_format(name).document]
    if documents and len(printed) > 1:
        what = f"{documents[0]} is a whole document and shares stdout with nothing"
        hint = f"Write it to a file: --output {documents[0]}:FILE."
        raise OptionError(what, where="--format", hint=hint)
    written = tuple(_parsed(text) for text in outputs)
    for i, (_, target) in enumerate(written):
        earlier = [path for _, path in written[:i]]
        if target in earlier:
            raise OptionError(f"'{target}' is named twice", where="--output")
        check_target(target, inputs=inputs, option="--output")
    return Reports(printed, written)


def _parsed(text: str) -> tuple[str, str]:
    name, colon, path = text.partition(":")
    if not colon or not path:
        hint = "Give it as FORMAT:PATH, e.g. json:check.json."
        raise OptionError(f"'{text}' names no file", where="--output", hint=hint)
    return _known(name, "--output"), path


def _known(name: str, option: str) -> str:
    if name in CHECK_FORMATS:
        return name
    close = difflib.get_close_matches(name, CHECK_FORMATS, 1, 0.6)
    hint = f"Did you mean '{close[0]}'?" if close else f"Choose {', '.join(CHECK_FORMATS)}."
    raise OptionError(f"there is no format '{name}'", where=option, hint=hint)


def _rendered(name: str, result: CheckResult, target: str | None) -> str:
    page = canvas(target)
    return check_format(name).render(result, Canvas(page.width, page.colour, page.unicode))
