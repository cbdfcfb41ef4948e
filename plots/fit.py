"""What a form of few parameters misses of measured curves: its residuals over size, one line a curve."""

from __future__ import annotations

import matplotlib
from matplotlib.figure import Figure

from ..bench.summary import plain
from ..fabric.library.forms import Fit
from . import style


def residuals(fit: Fit) -> Figure:
    """One panel: (form - measured) / measured in per cent over the message's size."""
    with matplotlib.rc_context(style.RC):
        fig = Figure(figsize=(7.2, 4.2))
        ax = fig.subplots()
        style.dress(ax, "what alpha, beta and gamma miss: (form − measured) / measured")
        ax.axhline(0, color=style.MUTED, linewidth=0.8)
        at = 0
        for c in fit.curves:
            part = fit.residuals[at : at + len(c.sizes)] * 100
            at += len(c.sizes)
            label = plain(f"{c.source}: {c.algorithm}, {c.ranks} ranks", 50)
            ax.plot(c.sizes, part, marker="o", markersize=3.5, linewidth=1.2, label=label)
        style.size_axis(ax, min(c.sizes[0] for c in fit.curves), max(c.sizes[-1] for c in fit.curves))
        ax.set_ylabel("per cent")
        ax.legend(frameon=False, fontsize=8)
        fig.tight_layout()
        return fig
