"""busbw fit: what measured curves say of a system: a few figures with intervals, and a calibrated card."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "fit alpha, beta, gamma to measured curves, and write a calibrated system card"
DESCRIPTION = """\
Fit measured curves: busbw's own result files, logs of nccl-tests and others (busbw import), or a CSV of points.

Prints Hockney's alpha, beta and gamma with 95 % intervals, LogGP's letters, the size of half bandwidth, where the curves of
two algorithms cross and where the library seems to change protocol. With --system and -o it writes a calibrated card: the
system's model, bent through every measured point; busbw simulate and plot take it like any other card."""
EPILOG = """\
examples:
  busbw fit results.jsonl                                       alpha, beta and gamma of a sweep
  busbw fit nccl.log --system dgx-h100-cx7 -o ours.yaml         a card that gives what was measured
  busbw simulate ./ours.yaml --model library --ranks 64 --algo auto
  busbw fit ring.log tree.log --plot residuals.png              crossovers, and a picture of what the form misses

exit codes: 0 fine, 2 bad usage or too few points"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from .plot import add_ranks

    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="result files, logs, or CSVs with published points' columns"
    )
    parser.add_argument("--system", metavar="NAME", help="the system that was measured: a name or a card (.yaml)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a figure of that card, such as nodes=4"
    )
    parser.add_argument("-o", "--output", metavar="CARD", help="write the calibrated card (.yaml); needs --system")
    parser.add_argument(
        "--parameters", default="alpha,beta,gamma", metavar="LIST", help="which to fit (default alpha,beta,gamma)"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw what the form misses, as .png, .svg or .pdf")
    add_ranks(parser)


def run(args: argparse.Namespace) -> int:
    """Print the fit and write what was asked for. Raises UserError for what cannot be fitted or written."""
    from ..errors import UserError
    from ..fabric.library import forms
    from ..interchange.curves import curves_of

    if args.output and not args.system:
        raise UserError("-o goes with --system NAME, the card that the calibrated one stands on")
    if args.output and Path(args.output).suffix not in (".yaml", ".yml"):
        raise UserError(f"-o {args.output}: accepted is a file that ends in .yaml")
    names = [n.strip() for n in args.parameters.split(",") if n.strip()]
    unknown = [n for n in names if n not in forms.NAMES]
    if unknown or not names:
        raise UserError(f"--parameters {args.parameters[:60]}; accepted: {', '.join(forms.NAMES)}")
    curves = [c for path in args.files for c in curves_of(path, args.ranks)]
    fit = forms.hockney(curves, names)
    print("\n".join(lines(fit, curves)))
    if args.system:
        text, said = _card(args, curves, fit)
        print("\n".join(said))
        if args.output:
            _write(Path(args.output), text)
            print(f"wrote {args.output}; busbw simulate ./{args.output} --model library takes it")
    if args.plot:
        from ..plots.curves import save
        from ..plots.fit import residuals

        print(f"picture: {save(residuals(fit), args.plot)}")
    return 0


def lines(fit, curves) -> list[str]:
    """The printed fit."""
    from ..bench.summary import plain, size_words
    from ..fabric.library import forms

    text = [f"# {len(curves)} curves, {len(fit.residuals)} points"]
    for c in curves:
        half = forms.half_size(c)
        about = f"{c.ranks} ranks, {c.collective}, {c.algorithm}{f', {c.library}' if c.library else ''}"
        sizes = f"{size_words(c.sizes[0])} to {size_words(c.sizes[-1])}"
        told = (
            f"half of its best bandwidth at {size_words(half)}"
            if half
            else "above half of its best bandwidth throughout"
        )
        text.append(f"# {plain(c.source, 40)}: {about}: {len(c.sizes)} sizes, {sizes}; {told}")
    text.append(
        "# Hockney: T = messages * alpha + bytes * beta + reduced bytes * gamma, as the algorithm has them (ring where unknown)"
    )
    units = {"alpha": (1e6, "us a message"), "beta": (1e12, "ps a byte"), "gamma": (1e12, "ps a byte reduced")}
    for name, p in fit.parameters.items():
        scale, unit = units[name]
        rate = f"  ({1 / p.value / 1e9:.4g} GB/s)" if name != "alpha" and p.value > 0 else ""
        text.append(
            f"  {name:<6} {p.value * scale:>10.4g} {unit:<18} 95 %: {p.low * scale:.4g} to {p.high * scale:.4g}{rate}"
        )
    for name, other in fit.joined.items():
        text.append(
            f"  {name:<6} not told apart from {other}, which holds it too"
            if other
            else f"  {name:<6} not seen in these curves"
        )
    if "alpha" in fit.parameters and "beta" in fit.parameters:
        a, b = fit.parameters["alpha"], fit.parameters["beta"]
        text.append(
            f"# LogGP: L + 2o = {a.value * 1e6:.4g} us (an all-reduce cannot tell L from o), G = {b.value * 1e12:.4g} ps a byte"
        )
    worst = max(abs(r) for r in fit.residuals)
    text.append(f"# the form misses the points by {fit.median_error:.1%} in the median, {worst:.0%} at worst")
    for x in forms.crossings(curves):
        text.append(f"# {x.first} is faster below {size_words(x.size)}, {x.second} above ({x.ranks} ranks)")
    for c in curves:
        found = forms.switches(c)
        if found:
            text.append(
                f"# {plain(c.source, 40)}, {c.ranks} ranks: seems to change protocol at {', '.join(map(size_words, found[:6]))}"
            )
    return text


def _card(args, curves, fit) -> tuple[str, list[str]]:
    """The calibrated card's text, and how far the card that it stands on was from the curves."""
    import statistics

    from ..bench.summary import plain
    from ..errors import UserError
    from ..fabric.cards import card
    from ..fabric.cards.curves import dump
    from ..fabric.library import predict

    system = card.override(card.load(args.system), args.set)
    machine = predict.platform(system)
    said = []
    for c in curves:
        if c.ranks > system.gpus:
            raise UserError(
                f"{c.source}: {c.ranks} ranks, but {system.name} has {system.gpus} GPUs; accepted: --set nodes=N"
            )
        ratios = predict.curve_ratios(machine, c)
        said.append(
            f"# {plain(c.source, 40)}, {c.ranks} ranks: measured over the uncalibrated model {statistics.median(ratios):.2f} "
            f"in the median, {min(ratios):.2f} to {max(ratios):.2f}"
        )
    base = args.system
    if "/" in base or base.endswith((".yaml", ".yml")):
        base = str(Path(base).resolve())
    about = ["Written by busbw fit: measured times beside the card that they bend.",
             *(f"{n}: {p.value:.6g} s, 95 % {p.low:.6g} to {p.high:.6g}" for n, p in fit.parameters.items())]  # fmt: skip
    return dump(
        f"{system.name}, calibrated with {', '.join(Path(f).name for f in args.files)}", base, args.set, curves, about
    ), said


def _write(path: Path, text: str) -> None:
    from ..errors import UserError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as e:
        raise UserError(f"-o {path}: cannot be written: {e.strerror}") from None
