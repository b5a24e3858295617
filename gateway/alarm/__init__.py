"""Alarms: the state table, the engine that walks it, the journal that remembers."""
