"""Settings in layers: a file, its tables of models, flags; what is in force and from where."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gradscope.cli.layers import Layers, settings_of
from gradscope.cli.main import main
from gradscope.settings_file import find_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with models; the working directory is a folder in it."""
    (tmp_path / "models" / "old").mkdir(parents=True)
    for name in ("a.pt", "b.onnx", "old/c.pt", "[x].pt"):
        (tmp_path / "models" / name).touch()
    monkeypatch.chdir(tmp_path / "models")
    return tmp_path


def write(folder: Path, text: str) -> None:
    (folder / "gradscope.toml").write_text(text, encoding="utf-8")


ALL = """
data = "data/x.npz"
val = "loaders.py:val"
samples = "all"
batch-size = 7
label-column = -1
standardise = true
input-shape = ["3x8x8", "mask=8"]
arch = "nets.py:Net"
arch-args = { hidden = 32, names = ["a"] }
allow = ["package.net", "__main__.Net=nets.py:Net"]
key = "ema"
loss = "losses.py:focal"
head = ["logits", "1"]
draws = 2
gradients = false
mode = "train"
seed = 5
device = "cuda"
device-map = "places.json"
dtype = "bf16"
"""


def test_every_option_of_a_model_can_be_set_and_paths_are_the_files(folder: Path):
    write(folder, ALL)
    s = settings_of("a.pt", Layers({}, find_settings()), ())
    data, load, probe = s.data, s.load, s.probe
    assert (data.data, data.val) == ("../data/x.npz", "../loaders.py:val")
    assert (data.samples, data.batch_size, data.seed) == (None, 7, 5)
    assert (data.label_column, data.standardise) == ("-1", True)
    assert data.input_shape == {"": (3, 8, 8), "mask": (8,)}
    assert (load.arch, load.key) == ("../nets.py:Net", "ema")
    assert load.arch_args == {"hidden": 32, "names": ["a"]}
    assert load.allow == ("package.net", "__main__.Net=../nets.py:Net")
    assert (probe.outputs, probe.gradients) == (("logits", "1"), False)
    assert (probe.loss, probe.draws, probe.mode) == ("../losses.py:focal", 2, "train")
    assert probe.device_map == "../places.json"
    assert (probe.device, probe.dtype, load.trust_model) == ("cuda", "bf16", False)


def test_flags_come_before_tables_of_models_before_the_file_before_defaults(folder: Path):
    write(folder, """
        seed = 1
        draws = 2
        [[model]]
        path = "models/*.pt"
        seed = 3
        [[model]]
        path = "models/a.pt"
        seed = 4
        draws = 3
        arch = "package.nets:Net"
        val = "package.loaders:val"
    """)  # fmt: skip
    layers = Layers({"draws": 9, "select": None}, find_settings())
    seeds = {p: layers.of_model(p)["seed"] for p in ("a.pt", "b.onnx", "old/c.pt", "[x].pt")}
    assert {p: v.value for p, v in seeds.items()} == {
        "a.pt": 4, "b.onnx": 1, "old/c.pt": 1, "[x].pt": 3
    }  # fmt: skip
    assert seeds["a.pt"].source == "../gradscope.toml, model 2"
    mine = layers.of_model("a.pt")
    assert (mine["arch"].value, mine["val"].value) == ("package.nets:Net", "package.loaders:val")
    draws, samples = mine["draws"], mine["samples"]
    assert (draws.value, draws.source, samples.source) == (9, "flag", "default")


def test_settings_are_shown_with_where_they_come_from_as_toml(folder: Path, capsys):
    write(folder, ALL + """
        fail-on = "warning"
        ignore = ["GS106", { rule = "GS2", where = "a.*", reason = 'a "reason"' }]
        [rules]
        GS101.total = -4
        [[model]]
        path = "models/*.pt"
        arch-args = { }
    """)  # fmt: skip
    assert main(["check", "a.pt", "b.onnx", "--fail-on", "never", "--show-settings"]) == 0
    text = capsys.readouterr().out
    shown = tomllib.loads(text)
    assert (shown["fail-on"], shown["mode"], shown["seed"]) == ("never", "train", 5)
    assert shown["rules"]["GS101"]["total"] == -4
    assert shown["ignore"][0] == "GS106"
    assert shown["ignore"][1] == {"rule": "GS2", "where": "a.*", "reason": 'a "reason"'}
    assert [m["path"] for m in shown["model"]] == ["a.pt", "b.onnx"]
    sources = {li.split(" ")[0]: li.split("  # ")[-1] for li in text.splitlines() if "  # " in li}
    assert sources["fail-on"] == "flag"
    assert sources["seed"] == "../gradscope.toml"
    assert sources["tolerance"] == "default"
    assert str(folder) not in text


def test_no_torch_is_needed_to_show_or_to_refuse_settings(folder: Path):
    code = (
        "import sys; from gradscope.cli.main import main; status = main(sys.argv[1:])\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\nsys.exit(status)"
    )
    for arguments, expected in (
        (["--show-settings"], 0), (["--help"], 0), (["--select", "GS8"], 2), (["none*.pt"], 2),
        (["a.pt", "--baseline", "gone.json"], 2), (["a.pt", "--format", "xml"], 2),
    ):  # fmt: skip
        run = [sys.executable, "-c", code, "check", *arguments]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        assert done.returncode == expected, done.stderr


REFUSED = {
    "an unknown key": ("fail_on = 'error'\n", "Did you mean 'fail-on'"),
    "an unknown key of a model": ("[[model]]\npath='a.pt'\nacrh='x'\n", "Did you mean 'arch'"),
    "an unknown key of an ignore": ("[[ignore]]\nrule='GS1'\nwhy='x'\n", "Known: rule, reason"),
    "a gate's key in a model": ("[[model]]\npath='a.pt'\nfail-on='never'\n", "no setting"),
    "trust from a file": ("trust-model = true\n", "there is no setting 'trust-model'"),
    "no reason": ("[[ignore]]\nrule='GS203'\nwhere='e.*'\n", "has no reason"),
    "a blank reason": ("[[ignore]]\nrule='GS203'\nreason='  '\n", "'reason' must be a string"),
    "no rule": ("[[ignore]]\nwhere='e.*'\nreason='x'\n", "has no rule"),
    "no path": ("[[model]]\narch='a.py:f'\n", "has no path"),
    "a model that is a table": ("[model]\npath='a.pt'\n", "[[model]]"),
    "an ignore that is a table": ("[ignore]\nrule='GS1'\nreason='x'\n", "[[ignore]]"),
    "an unknown rule": ("[[ignore]]\nrule='GS230'\nreason='x'\n", "Did you mean GS"),
    "an unknown code": ("select = ['GS2', 'GS99']\n", "select: there is no rule 'GS99'"),
    "an ignored code": (
        "ignore = 'dead-rleu'\n",
        "ignore: there is no rule 'dead-rleu'. Did you mean GS203",
    ),
    "an unknown level": ("fail-on = 'eror'\n", "fail-on: there is no fail-on 'eror'. Did you"),
    "an unknown mode": ("mode = 'test'\n", "mode: there is no mode 'test'"),
    "a format": ("format = 'tap'\n", "there is no format 'tap'"),
    "no output": ("output = 'json'\n", "FORMAT:PATH"),
    "samples": ("samples = 0\n", "samples: '0' is neither"),
    "no whole number": ("batch-size = 1.5\n", "'batch-size' must be a whole number from 1"),
    "a number that is none": ("seed = true\n", "'seed' must be a whole number from 0"),
    "too large a number": ("draws = 20000\n", "'draws' must be a whole number from 1"),
    "a tolerance below 0": ("tolerance = -1\n", "'tolerance' must be a number from 0"),
    "a tolerance that is NaN": ("tolerance = nan\n", "'tolerance' must be a number from 0"),
    "a flag": ("standardise = 'yes'\n", "'standardise' must be true or false"),
    "a shape": ("input-shape = '3x'\n", "input-shape: '3x' is no shape"),
    "a factory": ("arch = 'net'\n", "arch: 'net' names no factory"),
    "arguments": ("arch-args = 3\n", "'arch-args' must be a table"),
    "an ignore that is a number": ("ignore = 3\n", "must be a list of tables or of codes"),
    "a threshold": ("[rules]\nGS101.totl = 3\n", "Did you mean 'total'"),
    "a date in arguments": ("arch-args = { a = 2026-01-01 }\n", "'arch-args' must be a table"),
    "arguments alone": ("arch-args = { a = 1 }\n", "means nothing without arch"),
    "a loss": ("loss = 'focal'\n", "loss: 'focal' is no loss"),
    "labels without data": ("label-column = 'y'\n", "means nothing without --data"),
    "a list of numbers": ("allow = [1]\n", "'allow' must be a string or a list of strings"),
    "a baseline that is none": ("baseline = 'models/a.pt'\n", "is no baseline"),
    "deep": ("select = " + "[" * 5000 + "]" * 5000 + "\n", "cannot be read"),
    "not UTF-8": (b"data = '\xff'\n", "cannot be read"),
    "large": (b"#" * (1 << 21), "more than 1 MB"),
    "a model that is not there": ("[[model]]\npath='models/x*.pt'\n", "no file matches"),
    "control characters": ('"\\u001b[31m" = 3\n', "there is no setting"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_settings_file_is_refused_in_one_line(name: str, folder: Path, capsys):
    text, said = REFUSED[name]
    content = text if isinstance(text, bytes) else text.encode()
    (folder / "gradscope.toml").write_bytes(content)
    named = [] if "not there" in name else ["a.pt"]
    assert main(["check", *named]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert said in err
    assert err.isprintable() or err[:-1].isprintable()


def test_inspect_and_rule_refuse_the_same_files(folder: Path, capsys):
    write(folder, "fail_on = 'error'\n")
    for command in (["inspect", "a.pt"], ["rule"]):
        assert main(command) == 2
        assert "Did you mean 'fail-on'" in capsys.readouterr().err
