"""The frame of an HTML page that stands alone: style sheet, colours in light and dark, figures fit to go inside.

The page loads nothing: its content security policy forbids scripts and every outside resource.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from . import style

# Each light colour and what stands for it on a dark page.
DARK = {
    style.INK: "#e6e9ed",
    style.MUTED: "#9aa3ad",
    style.RULE: "#31373f",
    style.BLUE: "#4da3e0",
    style.VERMILLION: "#f0813a",
    style.ORANGE: "#f0b429",
    style.GREEN: "#2fc39a",
    style.PURPLE: "#dd9dc0",
    style.SKY: "#7cc6f0",
    style.WINE: "#d072a3",
    style.OLIVE: "#bdbd5e",
    style.TEAL: "#62c8b7",
    style.VIOLET: "#d07dc2",
    style.SLATE: "#a6aeb7",
    style.SAND: "#c9a66e",
}

LIGHT_PAGE = "--page:#fff;--soft:#f6f8fa;--bad:#b3261e;--noisy:#8a5200;--alert:#fdecea;--good:#0b6b3a;"
DARK_PAGE = "--page:#14171b;--soft:#1c2026;--bad:#ff8a80;--noisy:#f0b429;--alert:#3a1d1b;--good:#4cc38a;"

CSS = """:root{--ink:var(--c1f2328);--muted:var(--c656d76);--rule:var(--cd8dee4);
--sans:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans","DejaVu Sans",sans-serif;
--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.55 var(--sans);-webkit-text-size-adjust:100%}
main{max-width:1120px;margin:0 auto;padding:48px 32px 64px}
header{margin-bottom:32px}
.brand{margin:0 0 6px;font-size:12px;letter-spacing:.14em;text-transform:uppercase;color:var(--muted)}
h1{margin:0;font-size:32px;line-height:1.2;font-weight:650;letter-spacing:-.015em;overflow-wrap:anywhere}
.from{margin:8px 0 0;color:var(--muted);overflow-wrap:anywhere}
h2{margin:48px 0 14px;font-size:20px;line-height:1.3;font-weight:650;letter-spacing:-.01em}
h3{margin:24px 0 8px;font-size:15px;font-weight:650;overflow-wrap:anywhere}
h4{margin:26px 0 6px;font-size:15px;font-weight:650;overflow-wrap:anywhere}
.file{font-weight:400;font-size:13px;color:var(--muted);overflow-wrap:anywhere;letter-spacing:0}
.alert{margin:0 0 12px;padding:10px 16px;border-left:3px solid var(--bad);background:var(--alert);
overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));margin-bottom:18px;
border:solid var(--rule);border-width:1px 0}
.tile{padding:14px 16px 14px 0}
.tile p{margin:0}
.tile .what,.tile .where{font-size:13px;color:var(--muted);overflow-wrap:anywhere}
.tile .number{font-size:27px;line-height:1.35;font-weight:600;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.facts{margin:0;padding:0;list-style:none;max-width:92ch}
.facts li{padding:2px 0;overflow-wrap:anywhere}
.facts .sub{padding-left:20px}
figure{margin:36px 0 0}
figcaption{margin-top:6px;font-size:13px;color:var(--muted);max-width:92ch}
svg.curves{display:block;width:100%;height:auto;stroke-linejoin:round;stroke-linecap:butt}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
.wide table{width:100%;min-width:960px}
th,td{padding:2px 8px;text-align:right;font-weight:400;white-space:nowrap;line-height:1.45}
thead th{vertical-align:bottom;color:var(--muted);font-size:12px;border-bottom:1px solid var(--rule);padding-bottom:5px}
th:first-child{padding-left:0}
tbody th{vertical-align:top;font-weight:600}
.l{text-align:left}
small{font-size:11px;color:var(--muted)}
tr.first>*{border-top:1px solid var(--rule);padding-top:3px}
tr.second>td{color:var(--muted);padding-bottom:3px}
tbody tr:first-child>*{border-top:0}
.ran{display:block;font-weight:400;font-size:11px;color:var(--muted)}
.swatch{display:inline-block;width:22px;height:4px;border-radius:2px;margin-right:9px;vertical-align:middle;
background:var(--series)}
td.bar{--tint:color-mix(in srgb,var(--series) 20%,transparent);
background:linear-gradient(var(--tint),var(--tint)) left center/var(--share) 16px no-repeat}
.bad{color:var(--bad)!important;font-weight:700}
.noisy{color:var(--noisy)!important}
.strip{display:block;margin:3px 0}
.strip .base{stroke:var(--rule);stroke-width:1}
.strip .ticks{stroke:var(--series);stroke-width:.8;opacity:.65}
.strip rect{fill:var(--series);opacity:.18}
.strip circle{fill:var(--series)}
.strip .median{stroke:var(--ink);stroke-width:1.2}
.prose p,.prose dl,.prose ul{max-width:92ch}
dl{display:grid;grid-template-columns:max-content 1fr;gap:6px 20px;margin:0}
dt{font-weight:600}
dd{margin:0}
pre{margin:0 0 12px;padding:12px 16px;background:var(--soft);font:13px/1.5 var(--mono);white-space:pre-wrap;
overflow-wrap:anywhere;border-radius:4px}
.pairs{margin:8px 0}
.pairs th,.pairs td{padding:3px 28px 3px 0;white-space:normal;overflow-wrap:anywhere;vertical-align:top;
border-bottom:1px solid var(--rule)}
.pairs th:first-child{text-align:left}
.pairs tbody th{font-weight:400;color:var(--muted);text-align:left}
.warnings{margin:0;padding-left:20px}
.warnings li{overflow-wrap:anywhere}
.note{color:var(--muted);font-size:13px}
summary{cursor:pointer;color:var(--muted)}
footer{margin-top:56px;padding-top:14px;border-top:1px solid var(--rule);font-size:12px;color:var(--muted);
overflow-wrap:anywhere}
.good{color:var(--good)}
.unsure{color:var(--noisy)}
.verdict{margin:0 0 4px;font-size:20px;line-height:1.5;overflow-wrap:anywhere}
.answer ul{margin:8px 0;padding-left:20px;max-width:92ch}
.answer li,.answer dd{overflow-wrap:anywhere}
.answer dd ul{margin:0;padding-left:18px}
.answer .wide table{min-width:0;width:auto;margin:14px 0 4px}
.answer details{margin-top:8px}
.causes{padding-left:22px;max-width:92ch}
.causes>li{margin-bottom:14px}
.causes dl{margin-top:4px;font-size:14px}
.causes dt{font-weight:400;color:var(--muted)}
caption{text-align:left;color:var(--muted);font-size:12px;padding-bottom:4px;overflow-wrap:anywhere}
.panels{display:grid;grid-template-columns:1fr 1fr;gap:24px}
.answer .legend{display:flex;flex-wrap:wrap;gap:2px 22px;list-style:none;padding:0;max-width:none;font-size:13px}
.key{display:inline-block;width:24px;margin-right:7px;vertical-align:middle;text-align:center}
.key.line{border-top:2px solid var(--ink)}
.key.dash{border-top:2px dashed var(--c0072b2)}
.key.band50,.key.band90{height:11px;background:color-mix(in srgb,var(--c0072b2) 38%,transparent)}
.key.band90{background:color-mix(in srgb,var(--c0072b2) 16%,transparent)}
.key.cross{color:var(--cd55e00)}
.hit .area{fill:transparent}
.hit:focus{outline:none}
.hit .tip{visibility:hidden;pointer-events:none}
.hit:hover .tip,.hit:focus .tip{visibility:visible}
.hit .tip path{stroke:var(--muted);stroke-width:.8;fill:none}
.hit .tip rect{fill:var(--page);stroke:var(--muted);stroke-width:.8}
.hit .tip text{fill:var(--ink);font:8.5px var(--sans)}
.hit .tip tspan:first-child{font-weight:650}
td.heat{background:color-mix(in srgb,var(--series) var(--share),transparent)}
td.heat.slow{font-weight:700}
.skip{position:absolute;left:-9999px}
.skip:focus{position:static}
:focus-visible{outline:2px solid var(--c0072b2);outline-offset:2px}
@media (max-width:640px){.panels{grid-template-columns:1fr}figure{overflow-x:auto}figure:not(.two) svg.curves{min-width:680px}
main{padding:24px 16px 40px}h1{font-size:25px}dl{grid-template-columns:1fr;gap:0}
dd{margin-bottom:10px}}
@media print{@page{margin:14mm}main{max-width:none;padding:0}body{font-size:10.5pt}h2,h3,h4{break-after:avoid}
tr,figure,.tile,.causes>li{break-inside:avoid}.hit,.skip{display:none}thead{display:table-header-group}.wide{overflow:visible}
.wide table{min-width:0;font-size:8pt}th,td{padding:1px 4px}
td.bar,.swatch,.alert,.strip{print-color-adjust:exact;-webkit-print-color-adjust:exact}
.strip{width:70px;height:8px}}
"""


def escape(text: object) -> str:
    """Text for HTML content and attributes; what UTF-8 cannot carry becomes a question mark."""
    return html.escape(str(text).encode("utf-8", "replace").decode(), quote=True)


def wide(label: str, table: str) -> str:
    """A table (HTML) that scrolls sideways where the page is narrower, by keyboard too. label: plain text, for screen readers."""
    return f'<div class="wide" role="group" tabindex="0" aria-label="{escape(label)}">{table}</div>'


def heads(names: Sequence[str], left: Sequence[int] = (0,)) -> str:
    """The header row of a table. left: columns that are aligned to the left."""
    cells = (f'<th scope="col"{" class=l" if i in left else ""}>{escape(t)}</th>' for i, t in enumerate(names))
    return f"<thead><tr>{''.join(cells)}</tr></thead>"


def variable(colour: str) -> str:
    """The CSS variable that stands for a light-page colour of ``DARK``."""
    return f"var(--c{colour[1:]})"


def inline(svg: str, prefix: str, title: str, overlay: str = "") -> str:
    """matplotlib's SVG made fit for a page: its own ids, the page's font and colours, the width of its column.

    overlay: SVG that is laid over the drawing and is no part of it for screen readers (``hover.columns``).
    """
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = svg.replace('href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")
    svg = svg.replace("font-family: 'DejaVu Sans', sans-serif", "font-family: var(--sans)")
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda m: variable(m.group()) if m.group() in DARK else m.group(), svg)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]+)"', svg)[1]
    drawn = svg[svg.index(">") + 1 : svg.rindex("</svg>")]
    return (
        f'<svg class="curves" viewBox="{box}" role="group" aria-label="{escape(title)}" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f'<g role="img" aria-label="{escape(title)}">{drawn}</g>{overlay}</svg>'
    )


def page(title: str, body: str) -> str:
    """The whole document. title: plain text; body: HTML, already escaped."""
    light = "".join(f"--c{c[1:]}:{c};" for c in DARK)
    dark = "".join(f"--c{c[1:]}:{d};" for c, d in DARK.items())
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{escape(title)} · busbw</title>
<style>
:root{{color-scheme:light dark;{light}{LIGHT_PAGE}}}
@media (prefers-color-scheme:dark){{:root{{{dark}{DARK_PAGE}}}}}
@media print{{:root{{color-scheme:light;{light}{LIGHT_PAGE}}}}}
{CSS}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""
