"""Tables between bars, as in Markdown, issues and all_reduce_bench.py:

| payload |    busbw   |    algbw   |
| ------: | ---------: | ---------: |
|   32KiB |   1.31GBps |   0.75GBps |
"""

from __future__ import annotations

NAME = "markdown"


def split(text: str) -> list[str] | None:
    text = text.strip()
    if not text.startswith("|") or len(text) > 4000:
        return None
    return [c.strip() for c in text.strip("|").split("|")]
