"""``run.toml``: every setting of a repair and the SHA-256 of every file, written and read back."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from gradscope import __version__
from gradscope.config import DataSettings, FixSettings, LoadSettings, ProbeSettings, Settings
from gradscope.errors import OptionError

MARK = "run.toml"
"""The file by which the folder of a run is known."""

T = TypeVar("T")
_TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str, "int": int, "float": (float, int), "bool": bool, "tuple": list, "Mapping": dict,
}  # fmt: skip


@dataclass(frozen=True)
class RunFile:
    """What stands in it.

    Attributes:
        settings, repair: as the user chose them; names of files are relative to ``base``.
        hashes: SHA-256 of what is read, by name.
        base: the folder in which the command was given, relative to that of the run.
        threads: of the processor, in each process.
        out_hash: SHA-256 of the repaired model; None: it was not written, or not yet.
        result: what came of it; empty: it has not ended.
        processes: that share the work.
    """

    settings: Settings
    repair: FixSettings
    hashes: Mapping[str, str]
    base: str
    threads: int = 0
    out_hash: str | None = None
    result: Mapping[str, object] | None = None
    processes: int = 1

    @property
    def identity(self) -> str:
        """Of what decides the result: settings, contents of files, version."""
        text = "\n".join(line for name, table in self._tables() for line in _lines(name, table))
        return hashlib.sha256(f"{__version__}\n{text}".encode()).hexdigest()

    def text(self, versions: Mapping[str, str]) -> str:
        """The whole file.

        Args:
            versions: of what computed.
        """
        out = {str(self.repair.out): self.out_hash} if self.out_hash is not None else {}
        tables: list[tuple[str, Mapping[str, object]]] = [
            ("versions", {"gradscope": __version__, **versions}),
            ("machine", {"threads": self.threads, "processes": self.processes}),
            ("paths", {"base": self.base}),
        ]
        if self.result is not None:
            tables.append(("result", self.result))
        for name, table in self._tables():
            tables.append((name, {**table, **out} if name == "sha256" else table))
        lines = [line for name, table in tables for line in _lines(name, table)]
        return "\n".join(lines).rstrip("\n") + "\n"

    def _tables(self) -> Iterator[tuple[str, Mapping[str, object]]]:
        settings, samples = self.settings, self.settings.data.samples
        yield "sha256", self.hashes
        yield "model", {"path": settings.model, **asdict(settings.load)}
        yield "data", asdict(settings.data) | {"samples": samples or "all"}
        yield "probe", asdict(settings.probe)
        yield "repair", asdict(self.repair)
        yield "rules", settings.rules


def read_run(folder: Path) -> RunFile:
    """The run of a folder.

    Raises:
        OptionError: it is none, or its file was damaged; says where.
    """
    file = folder / MARK
    if not file.is_file():
        hint = "Name the folder that fix wrote, PATH.run."
        raise OptionError(f"'{folder}' is no folder of a run", where="--run", hint=hint)
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError(f"cannot be read ({error})", where=str(file)) from error
    return _Reader(str(file), content).run()


class _Reader:
    def __init__(self, where: str, content: Mapping[str, Any]) -> None:
        self._where, self._content = where, content

    def run(self) -> RunFile:
        model = dict(self._table("model"))
        path = model.pop("path", None)
        if not isinstance(path, str):
            raise OptionError("names no model under [model] path", where=self._where)
        data = dict(self._table("data"))
        samples = data.pop("samples", "all")
        data["samples"] = 1 if samples == "all" else samples
        read = self._built(DataSettings, "data", data)
        settings = Settings(
            model=path,
            load=self._built(LoadSettings, "model", model),
            data=replace(read, samples=None) if samples == "all" else read,
            probe=self._built(ProbeSettings, "probe", self._table("probe")),
            rules=self._table("rules"),
            rules_from=self._where if self._table("rules") else None,
        )
        repair = self._built(FixSettings, "repair", self._table("repair"))
        hashes = {str(k): str(v) for k, v in self._table("sha256").items()}
        out_hash = hashes.pop(str(repair.out), None)
        machine = self._table("machine")
        threads, processes = machine.get("threads", 0), machine.get("processes", 1)
        base = self._table("paths").get("base", "..")
        result = self._table("result") or None
        return RunFile(settings, repair, hashes, str(base), threads, out_hash, result, processes)

    def _table(self, name: str) -> Mapping[str, Any]:
        found = self._content.get(name, {})
        if not isinstance(found, dict):
            raise OptionError(f"'{name}' must be a table", where=self._where)
        return found

    def _built(self, kind: type[T], name: str, table: Mapping[str, Any]) -> T:
        known = {f.name: str(f.type) for f in fields(kind)}  # type: ignore[arg-type]
        values = {}
        for key, value in table.items():
            if key not in known:
                raise OptionError(f"[{name}] has no setting '{key}'", where=self._where)
            wanted = [_TYPES[t] for t in re.findall(r"\w+", known[key]) if t in _TYPES]
            right = isinstance(value, wanted[0]) and not (
                isinstance(value, bool) and wanted[0] is not bool
            )
            if not right:
                what = f"[{name}] {key} is {value!r}, which is no {known[key]}"
                raise OptionError(what, where=self._where)
            values[key] = _frozen(value)
        return kind(**values)


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, dict):
        return {k: _frozen(v) for k, v in value.items()}
    return value


def located(run: RunFile, folder: Path) -> RunFile:
    """The run with names of files as they are from here, wherever the folder is now."""
    base = folder / run.base
    if _same(base, Path(".")):
        return run

    def moved(name: str | None) -> str | None:
        if name is None:
            return None
        before, sign, rest = name.rpartition("=")
        source, code, attribute = rest.partition(".py:")
        is_code = not code and ":" in source and not (base / source).exists()
        if is_code or os.path.isabs(source):
            return name
        return f"{before}{sign}{os.path.relpath(base / source)}{code}{attribute}"

    settings = run.settings
    load, data = settings.load, settings.data
    there = replace(
        settings,
        model=str(moved(settings.model)),
        load=replace(
            load,
            arch=moved(load.arch),
            allow=tuple(str(moved(a)) if ".py:" in a else a for a in load.allow),
        ),
        data=replace(data, data=moved(data.data), val=moved(data.val)),
        probe=replace(
            settings.probe,
            loss=str(moved(settings.probe.loss)) if ".py:" in settings.probe.loss
            else settings.probe.loss,
        ),
    )  # fmt: skip
    return replace(run, settings=there, repair=replace(run.repair, out=moved(run.repair.out)))


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _lines(name: str, table: Mapping[str, object]) -> Iterator[str]:
    yield f"[{name}]"
    nested = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            nested.append((key, value))
        elif value is None:
            yield f"# {_key(key)}: not given"
        else:
            yield f"{_key(key)} = {_value(value)}"
    yield ""
    for key, value in nested:
        yield from _lines(f"{name}.{_key(key)}", value)


def _key(key: str) -> str:
    plain = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if plain else _value(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(v) for v in value)}]"
    # TOML's basic strings are those of JSON, but for DEL, which it wants escaped as well.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
