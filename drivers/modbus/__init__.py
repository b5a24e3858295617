"""Modbus behind the Link protocol; with drivers/sim the only home of pymodbus."""

from drivers.modbus.open import load_transport, open_link

__all__ = ["load_transport", "open_link"]
