"""Which reports go where: ``--format`` to stdout, ``--output FORMAT:PATH`` to files."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from gradscope.cli.output import canvas, emit
from gradscope.errors import OptionError
from gradscope.files import check_target
from gradscope.report import Canvas

Result = TypeVar("Result")
_Given = TypeVar("_Given", contravariant=True)


class Renderer(Protocol[_Given]):
    """A format of a command's result; ``document``: it shares stdout with no other."""

    @property
    def document(self) -> bool:
        """Whether it is a whole document."""

    def render(self, result: _Given, canvas: Canvas, /) -> str:
        """The report, ending with a newline."""


@dataclass(frozen=True)
class Formats(Generic[Result]):
    """The formats that a command has: their names, and each by its name."""

    names: Collection[str]
    find: Callable[[str], Renderer[Result]]


@dataclass(frozen=True)
class Reports(Generic[Result]):
    """``printed``: formats on stdout, in this order. ``written``: (format, file)."""

    formats: Formats[Result]
    printed: tuple[str, ...]
    written: tuple[tuple[str, str], ...]

    def write(self, result: Result, *, all_layers: bool = False) -> None:
        """Render and write them all; files first, so that a closed stdout loses none."""
        for name, target in self.written:
            emit(self._rendered(name, result, target, all_layers), target, "--output")
        for name in self.printed:
            emit(self._rendered(name, result, None, all_layers), None)

    def _rendered(self, name: str, result: Result, target: str | None, all_layers: bool) -> str:
        page = canvas(target, all_layers=all_layers)
        return self.formats.find(name).render(result, page)


def planned(
    formats: Formats[Result],
    printed: Sequence[str],
    outputs: Iterable[str],
    inputs: Sequence[str | None],
) -> Reports[Result]:
    """The reports that were asked for.

    Args:
        formats: of the command.
        printed: those of ``--format``.
        outputs: of ``--output``, as FORMAT:PATH.
        inputs: of the run, none of which may be written to.

    Raises:
        OptionError: a format that does not exist, or two documents on one stream.
        OutputError: a file that cannot be written.
    """
    names = tuple(dict.fromkeys(_known(formats, name, "--format") for name in printed))
    documents = [name for name in names if formats.find(name).document]
    if documents and len(names) > 1:
        what = f"{documents[0]} is a whole document and shares stdout with nothing"
        hint = f"Write it to a file: --output {documents[0]}:FILE."
        raise OptionError(what, where="--format", hint=hint)
    written = tuple(_parsed(formats, text) for text in outputs)
    for i, (_, target) in enumerate(written):
        earlier = [path for _, path in written[:i]]
        if target in earlier:
            raise OptionError(f"'{target}' is named twice", where="--output")
        check_target(target, inputs=inputs, option="--output")
    return Reports(formats, names, written)


def _parsed(formats: Formats[Result], text: str) -> tuple[str, str]:
    name, colon, path = text.partition(":")
    if not colon or not path:
        hint = "Give it as FORMAT:PATH, e.g. json:report.json."
        raise OptionError(f"'{text}' names no file", where="--output", hint=hint)
    return _known(formats, name, "--output"), path


def _known(formats: Formats[Result], name: str, option: str) -> str:
    known = formats.names
    if name in known:
        return name
    close = difflib.get_close_matches(name, known, 1, 0.6)
    hint = f"Did you mean '{close[0]}'?" if close else f"Choose {', '.join(known)}."
    raise OptionError(f"there is no format '{name}'", where=option, hint=hint)
