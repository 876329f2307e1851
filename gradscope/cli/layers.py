"""Settings in layers: defaults, the settings file, its tables of models, flags. Later ones win."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from gradscope.checking.paths import local, matches
from gradscope.cli.data_options import check_data_options
from gradscope.cli.options import (
    FailOn,
    Mode,
    parse_arch,
    parse_arch_args,
    parse_input_shapes,
    parse_input_values,
    parse_loss,
    parse_samples,
)
from gradscope.config import CheckSettings, DataSettings, LoadSettings, ProbeSettings, Settings
from gradscope.errors import OptionError
from gradscope.settings_file import FileSettings, nearest

DEFAULT, FLAG = "default", "flag"

PER_MODEL: Mapping[str, object] = {
    "data": None,
    "val": None,
    "samples": str(DataSettings.samples),
    "batch-size": DataSettings.batch_size,
    "label-column": None,
    "standardise": False,
    "input-shape": [],
    "arch": None,
    "arch-args": None,
    "allow": [],
    "key": None,
    "trust-model": False,
    "input-value": [],
    "loss": ProbeSettings.loss,
    "head": [],
    "draws": ProbeSettings.draws,
    "gradients": ProbeSettings.gradients,
    "mode": ProbeSettings.mode,
    "seed": DataSettings.seed,
    "device": ProbeSettings.device,
    "device-map": ProbeSettings.device_map,
    "dtype": ProbeSettings.dtype,
}
WHOLE_RUN: Mapping[str, object] = {
    "fail-on": CheckSettings.fail_on,
    "select": [],
    "ignore": [],
    "baseline": None,
    "tolerance": CheckSettings.tolerance,
    "format": ["terminal"],
    "output": [],
}
"""Defaults, in the form in which a flag gives a value."""


@dataclass(frozen=True)
class Value:
    """A setting in force: what it is, and the layer that it comes from."""

    value: object
    source: str = DEFAULT


Layer = Mapping[str, Value]


class Layers:
    """What is in force, for the whole run and for each model.

    Args:
        flags: by key; None: not given.
        file: the settings file.
    """

    def __init__(self, flags: Mapping[str, object], file: FileSettings) -> None:
        self.file = file
        self._flags = {k: Value(v, FLAG) for k, v in flags.items() if v not in (None, [], ())}
        path, found, table = (file.path or "").partition(" [")
        self.file_name = os.path.relpath(path) + found + table if path else ""
        self._file = {k: Value(v, self.file_name) for k, v in file.options.items()}

    def whole_run(self) -> Layer:
        """What holds for the run."""
        defaults = {k: Value(v) for k, v in {**WHOLE_RUN, **PER_MODEL}.items()}
        return {**defaults, **self._file, **self._flags}

    def of_model(self, path: str) -> Layer:
        """What holds for this model."""
        found = {**self.whole_run()}
        for i, table in enumerate(self.file.models, 1):
            if matches(path, table.path):
                source = f"{self.file_name}, model {i}"
                found.update({k: Value(v, source) for k, v in table.options.items()})
        return {**found, **self._flags}


def settings_of(model: str, layers: Layers, limits: tuple[str, ...]) -> Settings:
    """The settings of one model.

    Raises:
        OptionError: a value that makes no sense, with the place that it comes from.
    """
    layer = layers.of_model(model)
    data, val = _text(layer, "data"), _text(layer, "val")
    column, standardise = _text(layer, "label-column"), bool(layer["standardise"].value)
    check_data_options(data, column, standardise)
    arch = _text(layer, "arch")
    if arch is None and layer["arch-args"].value is not None:
        raise OptionError("means nothing without arch", where=place_of(layer, "arch-args"))
    return Settings(
        model=model,
        load=LoadSettings(
            arch=parse_arch(arch, place_of(layer, "arch")),
            arch_args=parse_arch_args(_text(layer, "arch-args"), place_of(layer, "arch-args")),
            allow=texts(layer, "allow"),
            trust_model=bool(layer["trust-model"].value),
            key=_text(layer, "key"),
            values=parse_input_values(texts(layer, "input-value"), place_of(layer, "input-value")),
        ),
        data=DataSettings(
            data=local(data) if data else data,
            val=local(val) if val else val,
            samples=parse_samples(str(layer["samples"].value), place_of(layer, "samples")),
            batch_size=_integer(layer, "batch-size"),
            seed=_integer(layer, "seed"),
            input_shape=parse_input_shapes(
                texts(layer, "input-shape"), place_of(layer, "input-shape")
            ),
            label_column=column,
            standardise=standardise,
        ),
        probe=ProbeSettings(
            loss=parse_loss(str(layer["loss"].value), place_of(layer, "loss")),
            draws=_integer(layer, "draws"),
            mode=_choice(layer, "mode", [m.value for m in Mode]),
            device=str(layer["device"].value),
            outputs=texts(layer, "head"),
            gradients=bool(layer["gradients"].value),
            dtype=_text(layer, "dtype"),
            device_map=_text(layer, "device-map"),
        ),
        rules=layers.file.rules,
        rules_from=layers.file.path,
        limits=limits,
    )


def fail_on_of(layer: Layer) -> str:
    """error, warning, undetermined or never."""
    return _choice(layer, "fail-on", [f.value for f in FailOn])


def tolerance_of(layer: Layer) -> float:
    """A share from 0."""
    value = layer["tolerance"].value
    assert isinstance(value, float)
    return value


def texts(layer: Layer, key: str) -> tuple[str, ...]:
    """A list of strings."""
    value = layer[key].value
    assert isinstance(value, list)
    return tuple(map(str, value))


def _text(layer: Layer, key: str) -> str | None:
    value = layer[key].value
    return None if value is None else str(value)


def _integer(layer: Layer, key: str) -> int:
    value = layer[key].value
    assert isinstance(value, int)
    return value


def _choice(layer: Layer, key: str, known: list[str]) -> str:
    value = str(layer[key].value)
    if value not in known:
        raise OptionError(
            f"there is no {key} '{value}'", where=place_of(layer, key), hint=nearest(value, known)
        )
    return value


def place_of(layer: Layer, key: str) -> str:
    """What to name when a value makes no sense: the flag, or the file and the key in it."""
    source = layer[key].source
    return f"--{key}" if source in (FLAG, DEFAULT) else f"{source}: {key}"
