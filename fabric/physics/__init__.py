"""What a card means: framing, host, planes, topology, routing, noise, and the `Network` they add up to. Imports cards."""
