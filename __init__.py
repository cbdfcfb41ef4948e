"""busbw: measure, model and explain all-reduce bandwidth."""

__version__ = "0.1.0"
