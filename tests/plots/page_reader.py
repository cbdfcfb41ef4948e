"""An HTML page taken apart, and what it lacks for assistive technology: the essentials of WCAG 2 that a parser can see."""

import itertools
import re
from html.parser import HTMLParser

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Checks that tags nest, and keeps tags, attributes and text."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.ids, self.text, self.cells, self.rows, self.headings = [], [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [v for k, v in attrs if k == "id"]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.cells.append("")
            self.rows[-1].append("")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append([int(tag[1]), ""])

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [v for k, v in attrs if k == "id"]

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)
        if self.open and any(t in ("td", "th") for t in self.open):
            self.cells[-1] += data
            self.rows[-1][-1] += data
        if self.open and re.fullmatch("h[1-6]", self.open[-1]):
            self.headings[-1][1] += data

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def flaws(page: Page) -> list[str]:
    """One line a flaw; none for a page that has what it needs."""
    found = []
    by_tag: dict[str, list[dict]] = {}
    for tag, attributes in page.tags:
        by_tag.setdefault(tag, []).append(attributes)
    if not by_tag["html"][0].get("lang"):
        found.append("html without lang")
    if "title" not in by_tag or "main" not in by_tag:
        found.append("no title or no main")
    levels = [level for level, _ in page.headings]
    if levels.count(1) != 1 or levels[0] != 1:
        found.append(f"h1: {levels[:3]}")
    found += [f"h{b} after h{a}" for a, b in itertools.pairwise(levels) if b > a + 1]
    found += [f"empty h{level}" for level, text in page.headings if not text.strip()]
    found += [f"th without scope: {a}" for a in by_tag.get("th", []) if a.get("scope") not in ("row", "col")]
    found += [
        "a picture without a name" for a in by_tag.get("svg", []) if not (a.get("aria-label") or a.get("aria-hidden"))
    ]
    for tag, a in page.tags:
        if a.get("role") in ("img", "region", "group") and not a.get("aria-label"):
            found.append(f"{tag} with role {a['role']} without a name")
        if "tabindex" in a and (a["tabindex"] != "0" or not a.get("aria-label") or a.get("aria-hidden")):
            found.append(f"{tag} takes the focus without a name: {a}")
    targets = {a["href"][1:] for a in by_tag.get("a", []) if a.get("href", "").startswith("#")}
    return found + [f"a link to nowhere: #{t}" for t in targets - set(page.ids)]


def contrast(one: str, other: str) -> float:
    """Of two colours #rrggbb or #rgb, 1 to 21 (WCAG 2.2, contrast ratio)."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
