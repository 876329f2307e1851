"""``--show-settings``: what is in force, as TOML, each value with where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from gradscope.cli.layers import FLAG, Layer, Layers, Value

Thresholds = Mapping[str, Mapping[str, float]]


def shown(
    layers: Layers, models: Sequence[str], file: Thresholds, flags: Sequence[Thresholds]
) -> Iterator[str]:
    """Lines of TOML.

    Args:
        layers: the settings.
        models: those that would be examined.
        file: thresholds of the settings file, by code and name.
        flags: those of flags, later ones before earlier ones.
    """
    run = layers.whole_run()
    yield f"# settings file: {layers.file_name or 'none'}"
    yield from _lines({key: value for key, value in run.items() if key != "ignore"})
    yield from _ignores(layers, run["ignore"])
    limits = {(c, n): Value(v, layers.file_name) for c, t in file.items() for n, v in t.items()}
    for given in flags:
        limits |= {(c, n): Value(v, FLAG) for c, t in given.items() for n, v in t.items()}
    if limits:
        yield "\n[rules]"
        yield from _lines({f"{code}.{name}": v for (code, name), v in sorted(limits.items())})
    for model in models:
        yield f"\n[[model]]\npath = {_toml(model)}"
        own = layers.of_model(model)
        yield from _lines({k: v for k, v in own.items() if v != run[k]})


def _ignores(layers: Layers, codes: Value) -> Iterator[str]:
    """Codes and tables stand in one list, as they may in a file."""
    lines = [(_toml(code), codes.source) for code in _list(codes)]
    for ignore in layers.file.ignores:
        given = {k: v for k, v in asdict(ignore).items() if v is not None}
        table = ", ".join(f"{key} = {_toml(value)}" for key, value in given.items())
        lines.append((f"{{ {table} }}", layers.file_name))
    if not lines:
        yield from _lines({"ignore": codes})
        return
    yield "ignore = ["
    for text, source in lines:
        yield f"{f'  {text},'.ljust(40)}  # {source}"
    yield "]"


def _list(value: Value) -> list[object]:
    return value.value if isinstance(value.value, list) else []


def _lines(layer: Layer) -> Iterator[str]:
    for key, found in layer.items():
        line = f"# {key} is not set" if found.value is None else f"{key} = {_toml(found.value)}"
        yield f"{line.ljust(40)}  # {found.source}"


def _toml(value: object) -> str:
    """Strings, numbers, booleans and lists are written in TOML as in JSON; DEL is not."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
