"""Why a read failed; every leaf names the quality that its tags get."""

from __future__ import annotations

from typing import ClassVar, Final

from drivers import quality


class DriverError(Exception):
    """A read that failed. `quality` is what its tags become."""

    quality: ClassVar[int] = quality.BAD_DEVICE_FAILURE


class LinkDown(DriverError):
    """No connection: the endpoint refused, vanished or cannot be opened."""

    quality = quality.BAD_NO_COMMUNICATION


class NoAnswer(DriverError):
    """The request went out and nothing that belongs to it came back in time."""

    quality = quality.BAD_TIMEOUT


class WrongAnswer(DriverError):
    """An answer came that does not belong to the request: unit, function or byte count differ."""

    quality = quality.BAD_COMMUNICATION_ERROR


class DeviceException(DriverError):
    """The device answered with a Modbus exception; `code` is its number."""

    # Modbus application protocol V1.1b3, section 7
    NAMES: ClassVar[dict[int, str]] = {
        1: "illegal function",
        2: "illegal data address",
        3: "illegal data value",
        4: "server device failure",
        5: "acknowledge",
        6: "server device busy",
        8: "memory parity error",
        10: "gateway path unavailable",
        11: "gateway target failed to respond",
    }

    def __init__(self, code: int) -> None:
        super().__init__(f"exception {code} ({self.NAMES.get(code, 'unknown')})")
        self.code = code


class IllegalFunction(DeviceException):
    """Exception 1: the device does not know the function."""

    quality = quality.BAD_NOT_SUPPORTED


class IllegalAddress(DeviceException):
    """Exceptions 2 and 3: the device refuses the address or the quantity."""

    quality = quality.BAD_CONFIGURATION_ERROR


class TargetAway(DeviceException):
    """Exceptions 10 and 11: a gateway on the way cannot reach the device."""

    quality = quality.BAD_NO_COMMUNICATION


class UnexpectedModel(DriverError):
    """Another meter answers than the one that the device's profile describes; raised by who asks, never by a link."""

    quality = quality.BAD_CONFIGURATION_ERROR


class Unidentified(DriverError):
    """The device answers, but not now which model it is: busy, or at fault; raised by who asks, never by a link."""


# After one of these a device is not asked any further in a cycle: whoever did not answer one read will not the next.
Silence = NoAnswer | LinkDown | TargetAway | UnexpectedModel | Unidentified
SILENCES: Final = (NoAnswer, LinkDown, TargetAway, UnexpectedModel, Unidentified)

_LEAVES: dict[int, type[DeviceException]] = {
    1: IllegalFunction,
    2: IllegalAddress,
    3: IllegalAddress,
    10: TargetAway,
    11: TargetAway,
}


def device_exception(code: int) -> DeviceException:
    """Return the error for a Modbus exception code."""
    return _LEAVES.get(code, DeviceException)(code)
