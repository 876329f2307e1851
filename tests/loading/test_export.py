"""Exported programs: the same numbers as the eager model, whatever batch they were exported for."""

from __future__ import annotations

import json
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gradscope.config import LoadSettings
from gradscope.errors import GradscopeError, LoadError, UntrustedError
from gradscope.loading import load_model
from gradscope.loading.export_expressions import read_expression
from gradscope.loading.pickle_scan import Unsafe
from gradscope.model import Input, LoadedModel
from gradscope.probe.state import set_mode
from tests.hostile import CANARY
from tests.hostile_exports import HARMLESS_EXPORTS, HOSTILE_EXPORTS, edited, sound, write
from tests.loading.twins import TWINS, assert_same, eager, load, numbers

pytestmark = pytest.mark.filterwarnings("ignore")
MANY = torch.export.Dim("samples", min=2, max=4096)


def exported(
    module: nn.Module, x: torch.Tensor, *, free: bool = True, core: bool = False
) -> torch.export.ExportedProgram:
    shapes = ({0: MANY},) if free else None
    program = torch.export.export(module, (x,), dynamic_shapes=shapes)
    return program.run_decompositions() if core else program


def saved(program: torch.export.ExportedProgram, folder: Path) -> Path:
    path = folder / "model.pt2"
    torch.export.save(program, path)
    return path


@pytest.mark.parametrize("name", TWINS)
def test_same_numbers_as_eager(name: str, tmp_path: Path):
    module, x = eager(name)
    loaded = load(saved(exported(module, x[:4]), tmp_path))
    assert loaded.batch is None
    assert_same(numbers(loaded, x), numbers(LoadedModel("m", "module", module), x))


@pytest.mark.parametrize("name", ["mlp", "cnn with batch norm", "transformer", "residual"])
def test_decomposed_programs_have_the_same_numbers(name: str, tmp_path: Path):
    module, x = eager(name)
    loaded = load(saved(exported(module, x[:4], core=True), tmp_path))
    assert_same(numbers(loaded, x), numbers(LoadedModel("m", "module", module), x))


@pytest.mark.parametrize("size", [1, 2, 8])
@pytest.mark.parametrize("name", ["mlp", "cnn with batch norm", "lstm"])
def test_a_fixed_batch_has_the_same_numbers(name: str, size: int, tmp_path: Path):
    module, x = eager(name)
    loaded = load(saved(exported(module, x[:size], free=False), tmp_path))
    assert loaded.batch == size
    assert f"exported for {size} sample" in " ".join(loaded.notes)
    wanted = numbers(LoadedModel("m", "module", module, batch=size), x, size)
    assert_same(numbers(loaded, x, size), wanted)


def test_a_single_sample_runs_too(tmp_path: Path):
    module, x = eager("cnn with batch norm")
    loaded = load(saved(exported(module, x[:4]), tmp_path))
    assert torch.allclose(loaded.module(x[:1]), module(x[:1]), atol=1e-6)


class Keywords(nn.Module):
    """Positional and keyword arguments; outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(3, 3), nn.Linear(3, 3)
        self.embed = nn.Embedding(5, 3)

    def forward(
        self, x: torch.Tensor, *, tokens: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        h = torch.tanh(self.body(x))
        if tokens is not None:
            h = h + self.embed(tokens)
        return {"logits": self.head(h), "hidden": h}


def test_inputs_are_declared_with_names_shapes_and_types(tmp_path: Path):
    arguments = {"tokens": torch.zeros(4, dtype=torch.int64)}
    shapes = {"x": {0: MANY}, "tokens": {0: MANY}}
    program = torch.export.export(
        Keywords().eval(), (torch.randn(4, 3),), arguments, dynamic_shapes=shapes
    )
    loaded = load(saved(program, tmp_path))
    assert loaded.inputs == (
        Input("x", (None, 3), torch.float32), Input("tokens", (None,), torch.int64)
    )  # fmt: skip
    assert loaded.batch is None


def test_outputs_keep_their_names(tmp_path: Path):
    module, x = Keywords().eval(), torch.randn(24, 3)
    found = numbers(load(saved(exported(module, x[:4]), tmp_path)), x)
    assert [h.name for h in found.heads] == ["output.logits", "output.hidden"]


def test_layers_keep_their_kind(tmp_path: Path):
    module, x = eager("cnn with batch norm")
    loaded = load(saved(exported(module, x[:4]), tmp_path))
    found = numbers(loaded, x)
    assert [layer.kind for layer in found.layers][:3] == ["Conv2d", "BatchNorm2d", "Conv2d"]
    assert "exported in eval mode" in " ".join(loaded.notes)


def test_a_program_in_train_mode_says_so(tmp_path: Path):
    module, x = eager("cnn with batch norm")
    loaded = load(saved(exported(module.train(), x[:4]), tmp_path))
    assert "runs in train mode" in " ".join(loaded.notes)


def test_its_mode_cannot_be_changed(tmp_path: Path):
    module, x = eager("mlp")
    loaded = load(saved(exported(module, x[:4]), tmp_path))
    assert set_mode(loaded.module, "eval") == ([], [])
    assert [s.what for s in set_mode(loaded.module, "train")[1]] == ["train mode"]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 5), r"shape\[1\] to be equal to 6, but got 5"),
        ((3, 6), r"shape\[0\] to be equal to 8, but got 3"),
        ((8, 2, 6), "number of dimensions"),
    ],
)
def test_shapes_that_do_not_fit_are_explained(shape: Any, message: str, tmp_path: Path):
    module, x = eager("mlp")
    loaded = load(saved(exported(module, x[:8], free=False), tmp_path))
    with pytest.raises(RuntimeError, match=message):
        loaded.module(torch.randn(shape))


def test_weights_without_gradient_and_shared_weights_are_measured(tmp_path: Path):
    module, x = eager("mlp")
    module[2].weight = module[0].weight
    module[4].weight.requires_grad_(False)
    loaded = load(saved(exported(module, x[:4]), tmp_path))
    found = numbers(loaded, x)
    assert_same(found, numbers(LoadedModel("m", "module", module), x))
    assert {p.name: p.trainable for p in found.parameters}["4.weight"] is False
    assert ("0.weight", "2.weight") in [p.names for p in found.parameters]


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s77', positive=True, integer=True)", "s0 + 1", "Pow(Symbol('s0'), Integer(2))",
        "FloorDiv(s0, 2)", "Eq(Mod(s0, 2), 0)", "Float('1.5', precision=53)", "Max(1, s1 - 3)",
    ],
)  # fmt: skip
def test_arithmetic_passes(text: str):
    assert read_expression(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')", "(lambda: 1)()", "2**10**9", "Pow(9, Pow(9, 9))", "Symbol('a;b')",
        "os", "eval('1')", "'a'", "[1]", "s0.__class__", "9" * 30, "s0[0]", "f'{s0}'", "s0 if 1",
        "Symbol(x='a')", "(x := 1)", "s0\x00", "{1: 2}", "Integer(2)**Integer(100000)", "",
    ],
)  # fmt: skip
def test_what_is_no_arithmetic_is_refused(text: str):
    with pytest.raises(Unsafe):
        read_expression(text)


def test_compiled_packages_are_named(tmp_path: Path):

    with pytest.raises(UntrustedError, match="AOTInductor"):
        load(HOSTILE_EXPORTS["export: compiled code"](tmp_path))


def test_trusted_files_are_opened_unseen(tmp_path: Path):
    module, x = eager("lstm")
    path = saved(exported(module, x[:4]), tmp_path)
    loaded = load_model(str(path), LoadSettings(trust_model=True))
    assert_same(numbers(loaded, x), numbers(LoadedModel("m", "module", module), x))
    hostile = HARMLESS_EXPORTS["export: sample inputs are a pickle"](tmp_path)
    with pytest.raises(LoadError, match="cannot be opened"):
        load_model(str(hostile), LoadSettings(trust_model=True))
    assert (tmp_path / CANARY).exists()


def test_outputs_of_other_classes_are_taken_for_tuples(tmp_path: Path):
    def change(value: Any, command: str) -> None:
        signature = value["graph_module"]["module_call_graph"][0]["signature"]
        leaf = {"type": None, "context": None, "children_spec": []}
        form = {"type": "transformers.ModelOutput", "context": "[]", "children_spec": [leaf]}
        signature["out_spec"] = json.dumps([1, form])

    loaded = load(edited("models/model.json", change)(tmp_path))
    assert loaded.module is not None
    assert isinstance(loaded.module(torch.zeros(4, 3)), tuple)
    assert "transformers.ModelOutput are taken for tuples" in " ".join(loaded.notes)


class Unusual(nn.Module):
    """No gradients inside, two branches, a counter, a stop to gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 3)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            mean = self.one(x).mean()
        self.seen += 1
        h = torch.cond(x.sum() > 0, torch.tanh, torch.sigmoid, (self.one(x) - mean,))
        y = self.two(h) + self.seen
        y[:, 0] = h[:, 0]  # becomes an operation without a derivative
        return y


@pytest.mark.parametrize("core", [False, True])
def test_unusual_programs_run(core: bool, tmp_path: Path):
    torch.manual_seed(0)
    module, x = Unusual().eval(), torch.randn(8, 6).abs()
    wanted = module(x)
    module.seen.zero_()
    loaded = load(saved(exported(module, x, core=core), tmp_path))
    assert loaded.module is not None
    assert torch.allclose(loaded.module(x), wanted, atol=1e-6)
    found = numbers(loaded, x, 8)
    assert [s.kind for s in found.sites] == ["tanh"]


def test_large_files_are_copied_to_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gradscope.loading.archive._IN_MEMORY", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    module, x = eager("mlp")
    script = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(module), script)
    for path in (script, saved(exported(module, x[:4]), tmp_path)):
        loaded = load(path)
        assert loaded.module is not None
        assert torch.allclose(loaded.module(x), module(x), atol=1e-6)
    left = [p for p in (tmp_path / "temporary").rglob("*") if p.is_file()]
    assert not left  # torch makes an empty folder of its own


def mutate(value: Any, draw: random.Random) -> Any:
    """JSON with one thing changed somewhere."""
    odd = [None, -1, 10**30, "x", "__import__('os')", [], {}, True, 0.5]
    if isinstance(value, dict) and value and draw.random() < 0.95:
        key = draw.choice(list(value))
        if draw.random() < 0.05:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: mutate(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.95:
        at = draw.randrange(len(value))
        return [*value[:at], mutate(value[at], draw), *value[at + 1 :]]
    return draw.choice(odd)


def said(path: Path) -> str:
    """The refusal, or nothing where it opens; any other exception is a bug."""
    try:
        load(path)
    except GradscopeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("record", ["models/model.json", "weights_config", "constants_config"])
def test_changed_json_loads_or_is_refused(record: str, tmp_path: Path):

    records = sound()
    name = next(n for n in records if record in n)
    draw = random.Random(0)
    for _ in range(60):
        changed = json.dumps(mutate(json.loads(records[name]), draw)).encode()
        assert "\n" not in said(write({**records, name: changed}, tmp_path))


def test_flipped_bits_load_or_are_refused(tmp_path: Path):

    good = write(sound(), tmp_path).read_bytes()
    draw = random.Random(1)
    for _ in range(60):
        content = bytearray(good)
        for _ in range(draw.randint(1, 4)):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        bad = tmp_path / "bad.pt2"
        bad.write_bytes(bytes(content))
        assert "\n" not in said(bad)


def test_truncated_files_are_refused(tmp_path: Path):

    path = write(sound(), tmp_path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(LoadError):
        load(path)
    assert not zipfile.is_zipfile(path)
