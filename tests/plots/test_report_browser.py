"""The page in a headless Chromium: it fits a telephone, shows values on focus without a script, prints, passes axe-core's audit.

Without a browser the file is skipped; without axe-core (AXE_CORE names its axe.min.js) the audit is.
"""

import html
import json
import os
import re
from pathlib import Path

import pytest
from busbw.answer.situation import Given
from busbw.answer.tables import answers_of
from busbw.errors import UserError
from busbw.interchange.results import opened
from busbw.plots import printing
from busbw.plots.report import report
from log_excerpts import H100, nccl_log

try:
    printing.browser()
except UserError as e:
    pytest.skip(str(e), allow_module_level=True)

# The page stands in a frame as wide as a telephone; this script looks into it from outside, so that the page's own policy holds.
LOOK = """
const page = frame.contentDocument, view = frame.contentWindow, said = {};
const shown = e => view.getComputedStyle(e.querySelector('.tip')).visibility;
const stops = [...page.querySelectorAll('.hit[tabindex]')];
said.stops = stops.length;
said.before = shown(stops[2]);
stops[2].focus();
said.focused = page.activeElement === stops[2];
said.after = shown(stops[2]);
said.others = shown(stops[3]);
said.wide = page.documentElement.scrollWidth;
said.scripts = page.scripts.length;
said.loaded = view.performance.getEntriesByType('resource').length;
"""
AUDIT = """
const run = view.axe.run(page, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice']});
const where = v => v.nodes.slice(0, 3).map(n => n.html.slice(0, 160)).join(' ');
run.then(r => { said.axe = r.violations.map(v => v.id + ': ' + where(v)); done(); });
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "a.log"
    sizes = [1 << k for k in range(13, 34)]
    path.write_text(nccl_log(2, 8, H100, {n: 240 * n / (n + (60 << 20)) for n in sizes}))
    result, log = opened(path)
    return report([result, result], answers=answers_of(log, Given(nics="8x400 Gb/s InfiniBand")))


def looked(page: str, folder: Path, width: int, audit: str = "") -> dict:
    if audit:
        page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
        page = page.replace("</body>", f"<script>{audit}</script></body>")
    script = (
        f"{LOOK}\nconst done = () => {{ out.textContent = JSON.stringify(said); }};\n{AUDIT if audit else 'done();'}"
    )
    outer = (
        f'<!doctype html><pre id="out"></pre><iframe id="frame" width="{width}" height="800" srcdoc="{html.escape(page)}"></iframe>'
        f"<script>frame.onload = () => {{ {script} }};</script>"
    )
    (folder / "outer.html").write_text(outer)
    budget = ["--virtual-time-budget=30000"] if audit else []
    done = printing.headless([*budget, "--dump-dom", (folder / "outer.html").as_uri()], str(folder / "profile"))
    told = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    return json.loads(html.unescape(told[1]))


def test_page_fits_a_telephone_and_shows_values_on_focus_without_scripts(page, tmp_path):
    said = looked(page, tmp_path, 390)
    assert said["wide"] <= 390 and said["scripts"] == 0 and said["loaded"] == 0
    assert said["focused"] and (said["before"], said["after"], said["others"]) == ("hidden", "visible", "hidden")


def test_page_passes_the_audit(page, tmp_path):
    axe = os.environ.get("AXE_CORE", "")
    if not axe or not Path(axe).is_file():
        pytest.skip("AXE_CORE does not name axe-core's axe.min.js (npm pack axe-core)")
    assert looked(page, tmp_path, 1280, Path(axe).read_text())["axe"] == []


def test_page_prints_to_pdf(page, tmp_path):
    printed = printing.pdf(page, tmp_path / "a.pdf").read_bytes()
    assert printed.startswith(b"%PDF-") and len(printed) > 30_000
