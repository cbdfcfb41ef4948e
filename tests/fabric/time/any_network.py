"""Networks for tests that hold a recurrence against replay."""

import numpy as np
from busbw.fabric.physics.network import NOISE_ENTRIES, network
from hypothesis import strategies as st


@st.composite
def networks(draw, ranks):
    """Any figures, on two levels with a port of their own or one for both, with noise or without."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    levels = draw(st.integers(0, 2))
    groups = np.array([np.arange(ranks) // draw(st.integers(1, 4)) ** k for k in range(1, levels + 1)])

    def times():
        return rng.integers(0, draw(st.sampled_from([1, 10**4, 10**7])), levels + 1)

    return network(
        groups.reshape(levels, ranks),
        latency=times(),
        byte_ps=rng.uniform(0, 200, levels + 1),
        send_overhead=times(),
        recv_overhead=times(),
        gap=times(),
        slow=1 + rng.integers(0, 2, (2 if levels else 1, ranks)) * 0.7,
        reduce_ps=rng.uniform(0, 200, ranks),
        copy_ps=rng.uniform(0, 200, ranks),
        noise=np.sort(rng.integers(0, 10**7, NOISE_ENTRIES)) if draw(st.booleans()) else None,
        seed=draw(st.integers(0, 1 << 30)),
    )
