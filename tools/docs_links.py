"""For mkdocs: links from the documentation to files of the repository become their paths.

On the page of a repository they lead somewhere; in what `make docs` builds they would lead nowhere.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

_LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>(?:\.\./)+[^)#\s]+)[^)]*\)")


def on_page_markdown(markdown: str, /, *, page: Any, **_: object) -> str:
    """Called by mkdocs with the text of each page."""
    folder = posixpath.dirname(page.file.src_uri)

    def plain(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link["target"]))
        if not path.startswith("../"):
            return link[0]
        path, text = path.removeprefix("../"), link["text"].strip("`")
        return f"`{path}`" if text in path else f"{link['text']} (`{path}`)"

    return _LINK.sub(plain, markdown)
