"""System cards: YAML with a value, a status and a source for every figure, read into a `System`."""
