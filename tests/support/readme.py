"""README and the pages of the documentation as text."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

README = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
"""README, followed by all pages."""
