"""Thresholds from a settings file and from flags."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gradscope.cli.main import main
from gradscope.errors import OptionError
from gradscope.rules import check_limits, joined, parse_limit
from gradscope.settings_file import find_settings

SAMPLES = Path(__file__).parent.parent / "sample_models"
DEEP = ["inspect", str(SAMPLES / "deep_tanh.pt"), "--data", str(SAMPLES / "digits.npz")]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")


def write(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")


def test_the_nearest_file_counts_alone(tmp_path: Path):
    assert find_settings(tmp_path / "a").rules == {}
    write(tmp_path, "pyproject.toml", "[tool.gradscope.rules]\nGS101.total = -4\n")
    assert find_settings().rules == {"GS101": {"total": -4}}
    write(tmp_path, "a/pyproject.toml", "[project]\nname = 'other'\n")
    assert find_settings().rules == {"GS101": {"total": -4}}, "no table of ours: passed over"
    write(tmp_path, "a/gradscope.toml", "[rules]\nvanishing-gradient.total = -5\n")
    assert find_settings().rules == {"vanishing-gradient": {"total": -5}}
    assert find_settings().path == str(tmp_path / "a" / "gradscope.toml")


BAD = {
    "no TOML": ("[rules", "gradscope.toml"),
    "an unknown section": ("[rule]\n", "Did you mean 'rules'"),
    "no table": ("rules = 3\n", "must be a table"),
    "an unknown code": ("[rules]\nGS110.total = -4\n", "Did you mean GS10"),
    "an unknown name": ("[rules]\nvanishing-gradent.total = -4\n", "Did you mean GS101"),
    "an unknown threshold": ("[rules]\nGS101.totl = -4\n", "Did you mean 'total'"),
    "no threshold": ("[rules]\nGS101 = -4\n", "GS101.total"),
    "a string": ("[rules]\nGS101.total = 'low'\n", "finite number"),
    "a truth": ("[rules]\nGS101.total = true\n", "finite number"),
    "nan": ("[rules]\nGS101.total = nan\n", "finite number"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_one_line(name: str, tmp_path: Path, capsys):
    text, hint = BAD[name]
    write(tmp_path, "gradscope.toml", text)
    assert main(DEEP) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "gradscope.toml" in err
    assert hint in err


@pytest.mark.parametrize(
    "flag", ["GS101", "GS101=3", "GS101.total", "GS101.total=low", "GS101.x=3", "nobody.total=3"]
)
def test_a_bad_flag_is_refused_in_one_line(flag: str, capsys):
    assert main([*DEEP, "--limit", flag]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "--limit" in err


def test_flags_override_the_file_threshold_by_threshold():
    file = check_limits({"GS101": {"total": -4, "warning": -3}}, "file")
    flags = [parse_limit(t, "--limit") for t in ("GS101.total=-9", "dead-relu.error = .5")]
    assert joined([file, *flags]) == {
        "GS101": {"total": -9.0, "warning": -3.0}, "GS203": {"error": 0.5}
    }  # fmt: skip


def test_thresholds_reach_the_findings_and_the_printed_commands(tmp_path: Path, capsys):
    write(tmp_path, "gradscope.toml", "[rules]\nGS101.total = -7\nGS204.ratio = 0\n")
    assert main([*DEEP, "--format", "json", "--limit", "GS101.warning=-5.5"]) == 0
    report = json.loads(capsys.readouterr().out)
    (found,) = [f for f in report["findings"] if f["code"] == "GS101"]
    assert (found["severity"], found["threshold"]) == ("warning", -5.5)
    assert found["remedies"][0].startswith("gradscope inspect ")
    assert "--limit GS101.warning=-5.5" in found["remedies"][0]


def test_rule_lists_and_explains(tmp_path: Path, capsys):
    assert main(["rule"]) == 0
    assert "GS101 vanishing-gradient" in capsys.readouterr().out
    write(tmp_path, "gradscope.toml", "[rules]\nGS101.total = -7\n")
    assert main(["rule", "vanishing-gradient"]) == 0
    text = capsys.readouterr().out
    assert "GS101.total = -7" in text
    assert "default -3" in text
    assert main(["rule", "gs101", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["thresholds"]["total"]["value"] == -7
    assert main(["rule", "GS999"]) == 2
    assert "Did you mean GS901" in capsys.readouterr().err
    assert main(["rule", "nothing like it"]) == 2
    assert "'gradscope rule' lists them" in capsys.readouterr().err


def test_a_table_of_thresholds_is_checked():
    with pytest.raises(OptionError, match=r"GS103 has no threshold 'x'\. It has: none"):
        check_limits({"GS103": {"x": 1}}, "file")
