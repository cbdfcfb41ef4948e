"""busbw systems: the system cards, and one of them with every figure, its status and its source."""

if not __package__:
    from _path import run_as_module

    run_as_module(__file__)

HELP = "list the systems that can be modelled, or show one with every figure and its source"
EPILOG = """\
examples:
  busbw systems
  busbw systems show memphis-b200-cx8-300k
  busbw systems show dgx-h100-cx7 --set nic.rate=200Gb/s --set nodes=64
  busbw systems show ./my-cluster.yaml
"""


def add_arguments(parser) -> None:
    parser.add_argument(
        "action", nargs="?", choices=("list", "show"), default="list", help="list (default) or show NAME"
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a system, or the path of a card of your own (.yaml)")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set a figure of the card shown, such as nic.rate=400Gb/s or nodes=64; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON, in SI units")


def run(args) -> int:
    from ..errors import UserError

    if args.action == "list":
        if args.name or args.settings:
            raise UserError("busbw systems list takes no name and no --set; accepted: busbw systems show NAME")
        return _list(args.json)
    if not args.name:
        raise UserError("which system? accepted: busbw systems show NAME (busbw systems lists them)")
    from ..fabric.cards import card

    system = card.override(card.load(args.name), args.settings)
    return _show(system, args.json)


def _list(as_json: bool) -> int:
    import json

    from ..fabric.cards import card

    rows = []
    for name in card.names():
        if name == card.THIS_MACHINE:  # listing does not measure
            rows.append(
                {"name": name, "gpus": None, "nic": "none", "topology": "one node", "title": "measured when used"}
            )
            continue
        s = card.load(name)
        rows.append(
            {
                "name": name,
                "gpus": s.gpus,
                "nic": f"{s.node.nics} x {s.nic.rate * 8 / 1e9:g} Gb/s" if s.nic else "none",
                "topology": _shape(s),
                "known": sum(f.status == "known" for f in s.figures.values()),
                "estimated": sum(f.status == "estimated" for f in s.figures.values()),
                "title": s.title,
            }
        )
    if as_json:
        print(json.dumps(rows, indent=1))
        return 0
    heads = ("name", "GPUs", "NICs a node", "topology", "known", "est.", "title")
    table = [
        [
            row["name"],
            "cores" if row["gpus"] is None else str(row["gpus"]),
            row["nic"],
            row["topology"],
            str(row.get("known", "-")),
            str(row.get("estimated", "-")),
            row["title"],
        ]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [heads, *table]) for i in range(len(heads) - 1)]
    right = (False, True, False, False, True, True)
    for line in [heads, *table]:
        cells = [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right)]
        print("  ".join([*cells, line[-1]]))
    print("\nbusbw systems show NAME prints every figure with its source.")
    return 0


def _shape(system) -> str:
    network = system.network
    if network is None:
        return "one node"
    planes = f" x {network.planes} planes" if network.planes > 1 else ""
    if network.topology in ("fat-tree", "rail"):
        return f"{network.topology}, {network.tiers} tiers{planes}"
    if network.dims:
        return f"{network.topology} {' x '.join(map(str, network.dims))}"
    return network.topology + planes


def _show(system, as_json: bool) -> int:
    import json

    from ..fabric.cards import card, units
    from ..fabric.physics import topology

    near, parts = topology.nearness(system, 1), topology.parts(system)  # fails if it cannot be built
    if as_json:
        figures = {key: f._asdict() for key, f in system.figures.items()}
        print(
            json.dumps(
                {"name": system.name, "title": system.title, "figures": figures, "notes": system.notes}, indent=1
            )
        )
        return 0
    rules = card.schema()
    words = {key: shown(f.value, rules[key]) for key, f in system.figures.items()}
    widths = max(map(len, words)), max(map(len, words.values())), max(len(f.status) for f in system.figures.values())
    print(f"{system.name}: {system.title}")
    print(f"{system.gpus} GPUs in {system.nodes} nodes")
    section = ""
    for key, figure in system.figures.items():
        if key.split(".")[0] != section:
            section = key.split(".")[0]
            print()
        source = figure.source + (f" -- {figure.how}" if figure.how else "")
        print(f"{key:<{widths[0]}}  {words[key]:<{widths[1]}}  {figure.status:<{widths[2]}}  {source}".rstrip())
    for note in system.notes:
        print(f"\nnote: {note}")
    print()
    print("from GPU to GPU, one way:")
    for name, switches, metres, seconds in zip(near.classes, near.switches, near.cable, near.seconds):
        way = (
            f"  {switches:.3g} switch{'' if switches == 1 else 'es'} and {metres:.3g} m of cable"
            if switches or metres
            else ""
        )
        print(f"  {name:<10}{units.format(float(f'{seconds:.3g}'), 'time'):>8}{way}")
    if parts.switches:
        print(f"switches by tier: {', '.join(map(str, parts.switches))}; cables: {', '.join(map(str, parts.cables))}")
        print(f"switches and NICs: {units.format(topology.network_power(system), 'power')}")
    return 0


def shown(value, rule: dict) -> str:
    """A figure as a card writes it."""
    from ..fabric.cards import units

    if rule.get("many"):
        return ", ".join(shown(item, {**rule, "many": False}) for item in value)
    if rule["kind"] in ("text", "choice"):
        return value
    if rule["kind"] == "flag":
        return "true" if value else "false"
    if rule.get("bits"):
        return f"{value * 8 / 1e9:g} Gb/s"
    return units.format(value, rule["kind"])
