"""The page of ``--format html`` in a browser: drawn, read, sorted, filtered, printed, hostile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from gradscope import pipeline
from gradscope.progress import Silent
from gradscope.report import Canvas, compare_format, render
from gradscope.report.text import safe
from tests.comparing.examples import hostile
from tests.report.browser import chromium, find_chromium
from tests.report.pages import HOSTILE, MADE, MEASURED

ROOT = Path(__file__).parents[2]
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 740}}
CHARTS = {
    "saturated": {"ledger", "gradients", "units", "histograms"},
    "recurrent": {"gradients", "units", "time", "histograms"},
    "deep": {"ledger", "gradients", "units", "histograms"},
    "hostile": {"ledger", "gradients", "units", "histograms"},
    "weights-only": set[str](),
    "broken": {"gradients", "units"},
    "residual": {"ledger", "units"},
    "tried": {"units", "trial"},
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium(find_chromium()) as found:
        yield found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        measured = {
            name: pipeline.inspect(MEASURED[name], Silent()) for name in ("saturated", "recurrent")
        }
    found = {}
    for name in CHARTS:
        inspection = measured[name] if name in measured else MADE[name]()
        found[name] = folder / f"{name}.html"
        found[name].write_text(render("html", inspection), encoding="utf-8")
    return found


class Pages:
    """Opened once for each size and theme. What a page says, and what it asks for, is kept."""

    def __init__(self, browser: Browser, files: dict[str, Path]) -> None:
        self.complaints: list[str] = []
        self._browser, self._files = browser, files
        self._pages: dict[tuple[str, str], Page] = {}

    def __call__(self, name: str, size: str = "desktop", theme: str = "light") -> Page:
        page = self._pages.get((name, size)) or self._open(name, size, theme)
        self._pages[name, size] = page
        page.emulate_media(color_scheme=theme)
        return page

    def _open(self, name: str, size: str, theme: str) -> Page:
        phone = size == "phone"
        page = self._browser.new_context(
            viewport=SIZES[size], color_scheme=theme, has_touch=phone, is_mobile=phone, offline=True
        ).new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._requested(request.url))
        page.goto(self._files[name].as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        page.evaluate("Object.values(charts).forEach(chart => chart.draw())")
        return page

    def _requested(self, url: str) -> None:
        if not url.startswith(("file:", "data:", "blob:")):
            self.complaints.append(f"asked for {url}")


@pytest.fixture(scope="module")
def pages(browser: Browser, files: dict[str, Path]) -> Pages:
    return Pages(browser, files)


@pytest.fixture
def opened(pages: Pages) -> Iterator[Pages]:
    """Nothing may be said on the console and nothing asked of the network."""
    yield pages
    found, pages.complaints[:] = list(pages.complaints), []
    assert found == []


def background(page: Page) -> int:
    """Brightness of the page, 0 to 765."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, re.findall(r"\d+", colour)[:3]))


def column(page: Page, table: str, title: str) -> list[str]:
    """The texts of a column, from top to bottom; hidden rows left out."""
    return page.evaluate(
        """([table, title]) => {
          const found = document.getElementById("table-" + table);
          const at = [...found.tHead.rows[0].cells].findIndex(c => c.textContent.trim() === title);
          const rows = [...found.tBodies[0].rows].filter(row => !row.hidden);
          return rows.map(row => row.cells[at].textContent.trim());
        }""",
        [table, title],
    )


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_is_drawn_and_no_one_complains(opened: Pages, name: str):
    page = opened(name)
    drawn = page.evaluate("Object.values(charts).filter(c => c.drawn).map(c => c.name)")
    assert CHARTS[name] <= set(drawn)
    assert page.locator(".plot svg.main-svg").count() >= len(CHARTS[name])
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["desktop"]["width"]


@pytest.mark.parametrize("name", ["recurrent", "hostile"])
def test_a_phone_scrolls_down_only(opened: Pages, name: str):
    page = opened(name, "phone", "dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("visualViewport.scale") == 1


def test_the_pointer_shows_numbers(opened: Pages):
    page = opened("saturated")
    box = page.locator("[data-chart=ledger] .canvas")
    box.scroll_into_view_if_needed()
    area = box.bounding_box()
    assert area is not None
    page.mouse.move(area["x"] + area["width"] / 2, area["y"] + area["height"] * 0.75)
    shown = page.locator("[data-chart=ledger] .hovertext").first
    shown.wait_for()
    text = shown.text_content() or ""
    left = page.evaluate("decades(DATA.ledger[0].left[1])")
    assert "2/tanh" in text
    assert f"{left} decades left" in text
    assert re.search(r"weights [+−]\d\.\d\d", text)


def test_arrow_keys_read_what_the_pointer_shows(opened: Pages):
    page = opened("recurrent")
    page.locator("[data-chart=time] .plot").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    live = page.locator("[data-chart=time] .live").text_content() or ""
    assert live.startswith("step 3, input: gradient")
    assert "forget" in live
    assert "saturated" in live
    expect(page.locator("[data-chart=time] .hovertext").first).to_contain_text("step 3")


def test_a_table_sorts_by_numbers_and_by_names(opened: Pages):
    page = opened("saturated")
    heading = page.locator("#table-parameters th", has_text="Spectral norm")
    button = heading.locator("button")
    button.focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    shown = column(page, "parameters", "Spectral norm")
    measured = [float(text) for text in shown if not text.startswith("–")]
    assert measured == sorted(measured)
    assert [text.startswith("–") for text in shown] == [False] * len(measured) + [True] * 4
    button.click()
    assert heading.get_attribute("aria-sort") == "descending"
    shown = column(page, "parameters", "Spectral norm")
    assert [float(t) for t in shown[: len(measured)]] == sorted(measured, reverse=True)
    assert shown[-1].startswith("–")
    page.locator("#table-parameters th button", has_text="Parameter").first.click()
    assert heading.get_attribute("aria-sort") == "none"
    names = column(page, "parameters", "Parameter")
    assert names == sorted(names)


def test_powers_of_ten_sort_by_their_size(opened: Pages):
    page = opened("deep")
    page.locator("#table-parameters th button", has_text="Gradient rms").first.click()
    sizes = [float(text) for text in column(page, "parameters", "Gradient rms")]
    assert len(sizes) == 1000
    assert min(sizes) < 1e-6 < 1e-3 < max(sizes)
    assert sizes == sorted(sizes)


def test_a_table_filters_by_words(opened: Pages):
    page = opened("saturated")
    grid = page.locator("[data-table=parameters]")
    grid.locator("input").fill("4. BIAS")
    assert column(page, "parameters", "Parameter") == ["4.bias"]
    assert grid.locator("[role=status]").text_content() == "1 of 8"
    grid.locator("input").fill("nothing like it")
    assert column(page, "parameters", "Parameter") == []
    grid.locator("input").fill("")
    assert len(column(page, "parameters", "Parameter")) == 8


def test_light_and_dark_follow_the_system_and_the_button(opened: Pages):
    page = opened("saturated", theme="dark")
    assert background(page) < 150
    ink = "charts.ledger.canvas.layout.font.color"
    dark = page.evaluate(ink)
    page.get_by_role("button", name="Light").click()
    assert background(page) > 600
    assert page.evaluate(ink) != dark
    assert page.locator(".theme [aria-pressed=true]").text_content() == "Light"
    page.get_by_role("button", name="Auto").click()
    assert background(page) < 150
    page.emulate_media(color_scheme="light")
    assert background(page) > 600
    page.wait_for_function(f"{ink} !== '{dark}'")


def test_a_parameter_leads_to_its_histograms(opened: Pages):
    page = opened("saturated")
    page.locator("#table-parameters th button", has_text="2.bias").click()
    assert page.locator("#histograms select").evaluate("s => s.selectedOptions[0].text") == "2.bias"
    assert page.locator("#histogram-table caption").text_content() == "2.bias"
    rows = page.locator("#histogram-table tbody tr").count()
    assert rows > 48


def test_views_of_a_chart_can_be_chosen(opened: Pages):
    page = opened("saturated")
    marks = "charts.gradients.reads.length"
    assert page.evaluate(marks) == 4
    page.locator("[data-chart=gradients] select").select_option("all parameters")
    assert page.evaluate(marks) == 8


def test_five_hundred_layers_can_be_used(opened: Pages):
    page = opened("deep", "phone")
    assert page.evaluate("charts.ledger.reads.length") == 500
    names = page.locator("[data-chart=ledger] .xaxislayer-above .xtick")
    assert 3 <= names.count() <= 30
    page.locator("[data-table=parameters] input").fill("blocks.499. bias")
    assert len(column(page, "parameters", "Parameter")) == 1
    page.locator("#table-parameters th button", has_text="max |w|").click()
    plot = page.locator("[data-chart=ledger] .plot")
    plot.focus()
    page.keyboard.press("End")
    assert ".499." in (page.locator("[data-chart=ledger] .live").text_content() or "")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_part_of_many_layers_gets_its_own_names(opened: Pages):
    page = opened("deep")
    page.evaluate("Plotly.relayout(charts.ledger.canvas, {'xaxis.range': [100, 110]})")
    page.wait_for_function("charts.ledger.canvas.layout.xaxis.tickvals.length === 11")
    assert page.evaluate("charts.ledger.canvas.layout.xaxis.tickvals[0]") == 100


def test_paper_is_light_and_shows_everything(opened: Pages):
    page = opened("saturated", theme="dark")
    paper = page.pdf()
    assert paper.startswith(b"%PDF")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert background(page) > 600
    assert page.locator("details:not([open]):not(.screen)").count() == 0
    assert page.evaluate("charts.ledger.width") <= 720
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert background(page) < 150
    assert page.locator("details[open]").count() == 0


def test_hostile_names_are_text(opened: Pages):
    page = opened("hostile")
    assert page.evaluate("window.pwned") is None
    assert page.locator("script").count() == 3
    assert page.locator("main img, main iframe, main a[href^=javascript]").count() == 0
    assert column(page, "parameters", "Parameter") == [safe(name) for name in HOSTILE]
    assert page.locator("[data-chart=ledger] option").first.text_content() == safe(HOSTILE[0])
    plot = page.locator("[data-chart=ledger] .plot")
    for at, name in enumerate(HOSTILE):
        page.evaluate("charts.ledger.at = -1")
        plot.focus()
        page.keyboard.press("Home")
        for _ in range(at):
            page.keyboard.press("ArrowRight")
        expected = page.evaluate("name => shorten(name, 44)", safe(name))
        expect(page.locator("[data-chart=ledger] .hovertext").first).to_contain_text(expected)
    assert page.locator("svg a[href]").count() == 0
    assert page.evaluate("window.pwned") is None


@pytest.mark.parametrize(("name", "theme"), [("recurrent", "dark"), ("saturated", "light")])
def test_accessible_by_the_rules_of_axe(opened: Pages, name: str, theme: str):
    page = opened(name, theme=theme)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    found = Axe().run(page).response["violations"]
    assert [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_of_a_comparison_on_a_phone(browser: Browser, tmp_path: Path, theme: str):
    """No script, no request, nothing that axe finds, nothing to scroll sideways but the chart."""
    file = tmp_path / "compared.html"
    file.write_text(compare_format("html").render(hostile(), Canvas()), encoding="utf-8")
    page = browser.new_page(viewport=SIZES["phone"], color_scheme=theme)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: said.append(request.url))
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert said == [file.as_uri()]
    found = Axe().run(page).response["violations"]
    assert [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("script").count() == 0
    page.close()
