"""Corridor Gateway: registers to values to verdicts to the database."""

__version__ = "0.1.0"
