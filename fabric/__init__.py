"""The network model: system cards, what a link carries, cost models and simulators. Never imports transports."""
