"""A settings file as frozen data: options, tables of models, ignores with reasons, thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradscope.config import Ignore
from gradscope.errors import OptionError
from gradscope.settings_file.keys import PER_MODEL, WHOLE_RUN, nearest, path, read_keys, text

_IGNORE = {"rule": text, "reason": text, "where": text, "model": path}
_SECTIONS = ("rules", "model", "ignore")


@dataclass(frozen=True)
class ModelTable:
    """One ``[[model]]``: a file or glob, relative to the working directory, and options for it."""

    path: str
    options: Mapping[str, object]


@dataclass(frozen=True)
class FileSettings:
    """What a settings file says.

    Attributes:
        path: of the file, and the table in it; None where there is none.
        rules: tables of thresholds, by code or name of the rule.
        options: by key, as the flags of ``gradscope check`` give them.
        models: options for single models, later ones before earlier ones.
        ignores: findings to set aside.
    """

    path: str | None = None
    rules: Mapping[str, object] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    models: tuple[ModelTable, ...] = ()
    ignores: tuple[Ignore, ...] = ()


def read_table(table: object, where: str, folder: str) -> FileSettings:
    """The settings of a table.

    Args:
        table: as TOML gives it.
        where: file and table, for messages.
        folder: of the file, which its paths are relative to.

    Raises:
        OptionError: an unknown key, or a value of a wrong type.
    """
    if not isinstance(table, dict):
        raise OptionError("must be a table", where=where)
    known = {**PER_MODEL, **WHOLE_RUN}
    for key in table:
        if key not in known and key not in _SECTIONS:
            hint = nearest(key, (*_SECTIONS, *known))
            raise OptionError(f"there is no setting '{key}'", where=where, hint=hint)
    rules = table.get("rules", {})
    if not isinstance(rules, dict):
        raise OptionError("'rules' must be a table, as GS101.total = -4", where=where)
    plain = {key: value for key, value in table.items() if key not in _SECTIONS}
    options = read_keys(plain, known, where, folder)
    codes, ignores = _ignores(table.get("ignore", []), where, folder)
    if codes:
        options["ignore"] = codes
    return FileSettings(where, rules, options, _models(table.get("model", []), where, folder),
                        ignores)  # fmt: skip


def _models(given: object, where: str, folder: str) -> tuple[ModelTable, ...]:
    found = []
    for place, table in _listed(given, "model", where):
        options = read_keys(table, {"path": path, **PER_MODEL}, place, folder)
        if "path" not in options:
            hint = 'Say which models it is about: path = "models/*.pt".'
            raise OptionError("has no path", where=place, hint=hint)
        found.append(ModelTable(str(options.pop("path")), options))
    return tuple(found)


def _ignores(given: object, where: str, folder: str) -> tuple[list[str], tuple[Ignore, ...]]:
    """Codes as of ``--ignore``, and tables with a reason."""
    given = [given] if isinstance(given, str) else given
    codes = [g for g in given if isinstance(g, str)] if isinstance(given, list) else []
    tables = [g for g in given if not isinstance(g, str)] if isinstance(given, list) else given
    found = []
    for place, table in _listed(tables, "ignore", where):
        values = {k: str(v) for k, v in read_keys(table, _IGNORE, place, folder).items()}
        for key, example in (("rule", "GS203"), ("reason", "pruned on purpose")):
            if key not in values:
                hint = f'Every ignore has one: {key} = "{example}".'
                raise OptionError(f"has no {key}", where=place, hint=hint)
        found.append(Ignore(**values))
    return codes, tuple(found)


def _listed(given: object, name: str, where: str) -> list[tuple[str, Mapping[str, object]]]:
    """(place, table) of an array of tables."""
    if not isinstance(given, list) or not all(isinstance(table, dict) for table in given):
        other = " or of codes" if name == "ignore" else ""
        raise OptionError(f"'{name}' must be a list of tables{other}, [[{name}]]", where=where)
    return [(f"{where}, {name} {i}", table) for i, table in enumerate(given, 1)]
