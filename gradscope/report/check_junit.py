"""JUnit's XML, which every CI shows as tests: a suite a model, a test a finding."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from gradscope.checking import CheckResult, ModelCheck
from gradscope.report.base import Canvas
from gradscope.report.check_entries import REFUSED, VERDICT, Entry, Kind, of_model, relative
from gradscope.report.text import safe


class Junit:
    """What fails is a failure, what is ignored is skipped, what could not be served an error.

    Everything else, and the verdict of a model without a failure, are tests that pass.
    """

    name = "junit"
    document = True

    def render(self, result: CheckResult, canvas: Canvas) -> str:
        """The document, indented, ending with a newline."""
        root = ET.Element("testsuites", name="gradscope")
        for model in result.models:
            root.append(_suite(result, model))
        for key in ("tests", "failures", "errors", "skipped"):
            root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
        ET.indent(root)
        text = ET.tostring(root, encoding="unicode")
        return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _suite(result: CheckResult, model: ModelCheck) -> ET.Element:
    path = relative(model.path)
    suite = ET.Element("testsuite", name=path)
    found = list(of_model(result, model))
    if not any(e.kind in (Kind.VERDICT, Kind.REFUSED) for e in found):
        verdict = f"{model.verdict.value}: {model.summary}" if model.verdict else model.why
        _output(_case(suite, path, VERDICT), verdict)
    for entry in found:
        _add(suite, entry)
    children = [child.tag for case in suite for child in case]
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(children.count("failure")))
    suite.set("errors", str(children.count("error")))
    suite.set("skipped", str(children.count("skipped")))
    return suite


def _add(suite: ET.Element, entry: Entry) -> None:
    is_finding = entry.code not in (VERDICT, REFUSED)
    name = f"{entry.code} {entry.name}: {entry.where}" if is_finding else entry.code
    case = _case(suite, entry.path, name)
    if entry.kind is Kind.REFUSED:
        ET.SubElement(case, "error", type=entry.code, message=entry.message)
    elif entry.kind is Kind.IGNORED:
        ET.SubElement(case, "skipped", message=f"ignored: {entry.reason}")
    elif entry.fails:
        kind = f"{entry.severity.value} {entry.code} {entry.name}"
        failure = ET.SubElement(case, "failure", type=kind, message=entry.message)
        failure.text = f"{entry.where}: {entry.message}"
    else:
        known = "known to the baseline, " if entry.kind is Kind.KNOWN else ""
        _output(case, f"{known}{entry.severity.value}: {entry.message}")


def _case(suite: ET.Element, path: str, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=path, name=name)


def _output(case: ET.Element, text: str) -> None:
    ET.SubElement(case, "system-out").text = safe(text)


FORMAT = Junit()
