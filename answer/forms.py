"""Answers for programs: JSON, and JUnit XML as CI systems read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from xml.etree import ElementTree

from .above import explained
from .causes import Finding
from .verdict import BAD, UNKNOWN, Answer
from .words import against, headline, table


def plain_data(name: str, answer: Answer, found: Sequence[Finding]) -> dict:
    """The answer as JSON takes it. Times in seconds, bandwidths in bytes a second."""
    situation = answer.situation
    return {
        "name": name,
        "collective": situation.collective,
        "ranks": situation.ranks,
        "nodes": situation.nodes,
        "gpu": situation.gpu,
        "verdict": answer.verdict,
        "headline": headline(answer),
        "missing": situation.missing,
        "known": situation.known,
        "assumed": situation.assumed,
        "against": situation.against or "the library's model",
        "explained": explained(answer),
        "remarks": answer.remarks,
        "sizes": [
            {
                "size_bytes": r.size,
                "line": r.line,
                "seconds": r.seconds,
                "busbw": r.busbw,
                "wrong": r.wrong,
                "verdict": r.verdict,
                **({} if r.modelled is None else {
                    "modelled_seconds": r.modelled.seconds,
                    **({} if r.modelled.band is None else {
                        "band_50": [r.modelled.band.low50, r.modelled.band.high50],
                        "band_90": [r.modelled.band.low90, r.modelled.band.high90],
                        "algorithm": r.modelled.choice.algorithm,
                        "protocol": r.modelled.choice.protocol,
                    }),
                }),
            }
            for r in answer.rows
        ],
        "causes": [asdict(f) for f in found],
    }  # fmt: skip


def junit(named: Sequence[tuple[str, Answer, Sequence[Finding]]]) -> str:
    """One test case a range of sizes: failed where it is bad, skipped where nothing can be said."""
    suites = ElementTree.Element("testsuites", name="busbw expect")
    for name, answer, found in named:
        suite = ElementTree.SubElement(suites, "testsuite", name=_xml(name))
        failures = skipped = 0
        for r in answer.ranges:
            sizes = f"{r.rows[0].size} to {r.rows[-1].size} bytes"
            case = ElementTree.SubElement(suite, "testcase", classname=answer.situation.collective, name=sizes)
            if r.verdict in BAD:
                failures += 1
                failure = ElementTree.SubElement(case, "failure", message=_xml(r.verdict))
                failure.text = _xml(
                    "\n".join([*table([r], against(answer)), *(f"{f.title}: {f.confirm}" for f in found[:3])])
                )
            elif r.verdict == UNKNOWN:
                skipped += 1
                ElementTree.SubElement(case, "skipped", message=_xml(answer.situation.missing or "cannot say"))
        suite.set("tests", str(len(answer.ranges)))
        suite.set("failures", str(failures))
        suite.set("skipped", str(skipped))
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True)


def _xml(text: str) -> str:
    """Without what XML 1.0 cannot hold."""
    return "".join(c for c in text if c in "\t\n" or " " <= c < "\ud800" or "\ue000" <= c <= "\ufffd")
