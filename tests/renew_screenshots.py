"""Pictures of the page of ``--format html`` for docs/: ``make screenshots``, then look at them."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser

from gradscope import pipeline
from gradscope.progress import Silent
from gradscope.report import render
from tests.report.browser import chromium, find_chromium
from tests.report.pages import MEASURED

FOLDER = Path(__file__).parent.parent / "docs" / "images"
MOST_BYTES = 150_000
VIEWS = {"light": (1180, 1560), "dark": (1180, 1560), "phone": (360, 1560)}


def main() -> None:
    """Measure the sample models, open their pages, and take the pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium(find_chromium()) as browser:
        for name, settings in MEASURED.items():
            page = Path(folder) / f"{name}.html"
            page.write_text(render("html", pipeline.inspect(settings, Silent())), encoding="utf-8")
            for view in VIEWS:
                _picture(browser, page, view, FOLDER / f"{name}-{view}.png")


def _picture(browser: Browser, file: Path, view: str, target: Path) -> None:
    width, height = VIEWS[view]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if view == "dark" else "light",
        is_mobile=view == "phone",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    page.evaluate("Object.values(charts).forEach(chart => chart.draw())")
    if view == "dark":  # the light picture has the top of the page, this one what follows
        page.evaluate("document.getElementById('gradients').scrollIntoView()")
        page.wait_for_selector("nav a[href='#gradients'][aria-current]")
    picture = Image.open(io.BytesIO(page.screenshot()))
    context.close()
    # Few colours are in it: a palette keeps it small.
    picture.convert("RGB").quantize(192, dither=Image.Dither.NONE).save(target, optimize=True)
    assert target.stat().st_size < MOST_BYTES, target


if __name__ == "__main__":
    main()
