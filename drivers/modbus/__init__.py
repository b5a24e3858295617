"""Modbus behind the Link protocol; with drivers/sim the only home of pymodbus."""

from drivers.modbus.open import open_link

__all__ = ["open_link"]
