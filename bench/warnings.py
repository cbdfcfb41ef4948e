"""What a row's samples say against themselves."""

from __future__ import annotations

from .record import Timing

LATE_SHARE = 0.1


def after_warnings(timings: dict[str, Timing | None], late: int, samples: int) -> list[str]:
    found = []
    for mode, t in timings.items():
        if t is None:
            continue
        name = mode.replace("_", "-")
        spread = (t.ci_high - t.ci_low) / 2 / t.seconds if t.seconds > 0 else 0.0
        if t.stopped == "budget" and spread > 0.05:
            found.append(
                f"{name}: the median is known to {100 * spread:.0f} % only after {len(t.samples)} samples; other load on "
                "this machine? Raise --budget"
            )
        elif len(t.samples) < 10:
            found.append(f"{name}: only {len(t.samples)} samples; raise --budget or -n")
    if samples and late > LATE_SHARE * samples:
        found.append(f"{late} of {samples} samples had a rank that started late: the machine interrupts the ranks")
    return found
