"""The command line's entry: one module a command, errors to one line, an exit status.

Nothing here may import what ``--help`` and ``--version`` do not need: both must be quick, and
rich's own imports take longer than all of these.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from functools import cache
from typing import Annotated

import typer

from gradscope import __version__
from gradscope.cli import status
from gradscope.cli.commands import LazyGroup
from gradscope.cli.processes import OPTION, split, start
from gradscope.errors import DEBUG, GradscopeError, Interrupted, OptionError, UntrustedError
from gradscope.ranks import ALONE, Ranks, place_of

_NOT_IN_PARTS = "A model that does not fit is measured with --device-map; fix alone has --shard."
_INSTEAD = {
    ("inspect", "--shard"): _NOT_IN_PARTS,
    ("check", "--shard"): _NOT_IN_PARTS,
    ("compare", "--shard"): _NOT_IN_PARTS,
    ("fix", "--device-map"): "A repair trains on one device; several processes share what it takes "
    "with --shard.",
    ("fix", "--dtype"): "A model is repaired in the type of its file.",
}
"""What to take for the options that other commands have."""

app = typer.Typer(
    name="gradscope",
    cls=LazyGroup,
    help="Where the gradient of a trained network goes, why, and what to do about it.",
    epilog="Exit status: 0 clean, 1 findings at or above --fail-on, 2 the request cannot be "
    "served, 3 nothing could be measured.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gradscope {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", help="Print the version.", callback=_version, is_eager=True
        ),
    ] = False,
    processes: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="First of all: share the command among N processes."),
    ] = 1,
) -> int:
    """Without a command: the help."""
    if processes > 1:
        raise OptionError("stands before every other word", where=OPTION)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
    return status.CLEAN


@cache  # once a process: typer does not free what it builds
def _command() -> typer.core.TyperGroup:
    command = typer.main.get_command(app)
    assert isinstance(command, typer.core.TyperGroup)
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit status. Every refusal is one line on stderr.
    """
    try:
        place = place_of()
        processes, words = split(sys.argv[1:] if arguments is None else arguments)
        if place is None and processes > 1:
            return start(processes, words)
    except GradscopeError as error:
        return _refuse(str(error), error.exit_status)
    if place is None:
        return _serve(words, ALONE)
    from gradscope.cli.launch import serve_as

    return serve_as(place, lambda ranks: _serve(words, ranks), _refuse)


def _serve(arguments: Sequence[str] | None, ranks: Ranks) -> int:
    try:
        result = _command()(args=arguments, prog_name="gradscope", standalone_mode=False, obj=ranks)
    except UntrustedError as error:
        return _refuse(_with_command(str(error), arguments), error.exit_status)
    except GradscopeError as error:
        return _refuse(str(error), error.exit_status)
    except typer.TyperException as error:
        return _refuse(_sentence(error.format_message()), status.REFUSED, _help_hint(error))
    except (Interrupted, KeyboardInterrupt) as error:
        return _interrupted(error)
    except OSError as error:
        return _refuse(_system_said(error), status.REFUSED)
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):
            return status.CLEAN  # rich's, when the reader of a help page has seen enough
        what = f"the code that was run called sys.exit({error.code!r}): nothing can be said"
        return _refuse(f"{what}. Guard it with `if __name__ == '__main__':`.", status.REFUSED)
    except GeneratorExit:
        return _refuse("the code that was run raised GeneratorExit.", status.REFUSED)
    except Exception as error:  # a bug of ours: say so in one line, and how to get the rest
        if _comes_of_interrupt(error):
            return _interrupted(error)
        if os.environ.get(DEBUG):
            raise
        return _bug(error)
    if result == status.INTERRUPTED:  # typer says so in no other way
        return _interrupted(None)
    return int(result or status.CLEAN)


def _with_command(text: str, arguments: Sequence[str] | None) -> str:
    """The options that would admit a file, as the whole command to type."""
    words = shlex.join(sys.argv[1:] if arguments is None else arguments)
    said = text.replace(", add --", f": gradscope {words} --")
    return said if said == text else said.removesuffix(".")


def _interrupted(error: BaseException | None) -> int:
    said = str(error) if isinstance(error, Interrupted) else "interrupted"
    return _refuse(f"{said}" if " " in said else f"{said}.", status.INTERRUPTED)


def _comes_of_interrupt(error: BaseException) -> bool:
    """Imports that are broken off fail in ways of their own."""
    at: BaseException | None = error
    while at is not None and not isinstance(at, KeyboardInterrupt):
        at = at.__cause__ or at.__context__
    return at is not None


def _system_said(error: OSError) -> str:
    """Permissions, names that are too long, a full device: the system's words and the place."""
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror or error}. Check the path and what you may do there."


def _refuse(text: str, exit_status: int, hint: str = "") -> int:
    line = " ".join(text.split())
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    print(f"gradscope: {line}{hint}", file=sys.stderr)
    return exit_status


def _sentence(message: str) -> str:
    """typer's message without its validator's prefix, ended."""
    return message.strip().replace("Value error, ", "").rstrip(".") + "."


def _help_hint(error: typer.TyperException) -> str:
    """Which help to read: usage errors know the command they came from; or what to take instead."""
    context = getattr(error, "ctx", None)
    if context is None:
        return ""
    option = getattr(error, "option_name", None)
    instead = _INSTEAD.get((str(context.info_name), str(option)))
    return f" {instead}" if instead else f" See '{context.command_path} --help'."


def _bug(error: Exception) -> int:
    text = "; ".join((f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())))
    advice = f" This is a bug in gradscope {__version__}: please report it with the traceback"
    return _refuse(f"internal error: {text}.", status.BUG, f"{advice} that {DEBUG}=1 shows.")


if __name__ == "__main__":
    sys.exit(main())
