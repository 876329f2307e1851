"""The pages of docs/rules, generated from the rules: ``make docs-rules`` writes them."""

from __future__ import annotations

from pathlib import Path

from gradscope.rules import all_rules
from gradscope.rules.describe import index, page

PAGES = Path(__file__).parent.parent / "docs" / "rules"


def rule_pages() -> dict[Path, str]:
    """Each file and what it should hold."""
    rules = all_rules()
    return {PAGES / "README.md": index(rules)} | {PAGES / f"{r.code}.md": page(r) for r in rules}


def main() -> None:
    """Write them, and remove what no rule stands behind any more."""
    pages = rule_pages()
    PAGES.mkdir(parents=True, exist_ok=True)
    for left in set(PAGES.iterdir()) - set(pages):
        left.unlink()
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
