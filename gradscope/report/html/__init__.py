"""The report as one page for a browser, self-contained; imported only when it is asked for.

``sections``, ``charts`` and ``tables`` say what is shown, ``page.html.j2`` where, ``page.css`` how;
the scripts draw, sort and filter in the browser.
"""

from gradscope.report.html.page import Html

__all__ = ["Html"]
