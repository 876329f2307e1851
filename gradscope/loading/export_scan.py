"""Checks an archive of ``torch.export.save`` before torch opens it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gradscope.errors import LoadError, UntrustedError
from gradscope.loading.archive import Archive, opened
from gradscope.loading.export_program import Program
from gradscope.loading.export_weights import read_config
from gradscope.loading.pickle_scan import Unsafe
from gradscope.loading.refusal import refusal

_AGAIN = "Save or copy the file again."
_EXPORT = "Export the model again with a recent PyTorch."
_SCHEMA = 8
_MAX_JSON = 64 << 20
_COMPILED = (".so", ".o", ".cubin", ".dll", ".dylib", ".pyd", ".hsaco", ".spv")


@dataclass(frozen=True)
class Checked:
    """An archive that was found harmless.

    Attributes:
        stream: written anew, for torch.
        value: the program's JSON, as torch will read it.
        program: what was noted on the way.
    """

    stream: IO[bytes]
    value: dict[str, Any]
    program: Program


def check(file: Path, *, on_cpu: bool) -> Checked:
    """Scan an archive.

    Args:
        file: what ``torch.export.save`` wrote.
        on_cpu: it is to run on the CPU, whatever device it was exported on.

    Raises:
        UntrustedError: it would do more than calculate.
        LoadError: it is broken, or of a form that cannot be examined.
    """
    with opened(file) as archive:
        model = _check_form(file, archive)
        program = Program(on_cpu)
        try:
            value = program.read(_json(file, archive, f"models/{model}.json"))
            _check_version(file, value)
            changed = {"archive_format": b"pt2", "archive_version": b"0"}
            for kind in ("weights", "constants"):
                config = f"data/{kind}/{model}_{kind}_config.json"
                held = read_config(_json(file, archive, config), archive.sizes, f"data/{kind}/")
                changed[f"data/{kind}/model_{kind}_config.json"] = json.dumps(held).encode()
        except Unsafe as error:
            raise refusal(file, error) from error
        changed["models/model.json"] = json.dumps(value).encode()
        # A pickle; only guards need it, which are checked otherwise.
        changed["data/sample_inputs/model.pt"] = b""
        changed[".data/version"] = b"6\n"
        return Checked(archive.rewritten(changed, _numbers(archive)), value, program)


def _check_form(file: Path, archive: Archive) -> str:
    names = archive.sizes
    if any(n.startswith("data/aotinductor/") or n.endswith(_COMPILED) for n in names):
        what = "is compiled by AOTInductor: machine code, of which no gradient can be taken"
        raise UntrustedError(what, where=str(file), hint="Save what torch.export.export returned.")
    if any("serialized_exported_program" in n for n in names):
        raise LoadError("is in the form of PyTorch 2.7 and earlier", where=str(file), hint=_EXPORT)
    models = [n.removeprefix("models/") for n in names if n.startswith("models/")]
    if len(models) != 1 or not models[0].endswith(".json"):
        what = f"holds {len(models)} programs; gradscope examines a file with one"
        raise LoadError(what, where=str(file), hint=_EXPORT)
    version = archive.read("archive_version", most=20) if "archive_version" in names else b"?"
    if version.strip() != b"0" or "archive_format" not in names:
        what = f"is an archive of version {version.decode('ascii', 'replace').strip()}, not 0"
        raise LoadError(what, where=str(file), hint=_EXPORT)
    name = models[0].removesuffix(".json")
    for kind in ("weights", "constants"):
        if f"data/{kind}/{name}.pt" in names:
            what = f"holds its {kind} as a pickle, as earlier versions of PyTorch wrote them"
            raise LoadError(what, where=str(file), hint=_EXPORT)
        if f"data/{kind}/{name}_{kind}_config.json" not in names:
            raise LoadError(f"lacks the list of its {kind}", where=str(file), hint=_AGAIN)
    return name


def _json(file: Path, archive: Archive, name: str) -> Any:
    try:
        return json.loads(archive.read(name, most=_MAX_JSON))
    except (ValueError, RecursionError) as error:
        what = f"record '{name}' cannot be read ({str(error)[:80]})"
        raise LoadError(what, where=str(file), hint=_AGAIN) from error


def _check_version(file: Path, value: dict[str, Any]) -> None:
    version = value.get("schema_version")
    major = version.get("major") if isinstance(version, dict) else None
    if major != _SCHEMA:
        what = f"is of schema version {major}, not {_SCHEMA}"
        raise LoadError(what, where=str(file), hint=_EXPORT)


def _numbers(archive: Archive) -> Iterator[str]:
    for name in archive.sizes:
        folder, _, own = name.rpartition("/")
        if (folder, own[:7]) in (
            ("data/weights", "weight_"),
            ("data/constants", "tensor_"),
        ) or name == "byteorder":
            yield name
