"""Detectors: columns in, flags out; one per file."""
