"""OPC UA status codes used as quality; bit 31 set means: do not use the value.

Source: OPC 10000-6 (OPC UA Mappings), annex A.2, StatusCodes, as published in the StatusCode.csv of the OPC Foundation.
"""

from __future__ import annotations

from typing import Final

BAD: Final = 0x8000_0000  # the severity bit
UNCERTAIN: Final = 0x4000_0000

GOOD: Final = 0x0000_0000
UNCERTAIN_SENSOR_NOT_ACCURATE: Final = 0x4093_0000
UNCERTAIN_ENGINEERING_UNITS_EXCEEDED: Final = 0x4094_0000
BAD_COMMUNICATION_ERROR: Final = 0x8005_0000
BAD_TIMEOUT: Final = 0x800A_0000
BAD_NO_COMMUNICATION: Final = 0x8031_0000
BAD_WAITING_FOR_INITIAL_DATA: Final = 0x8032_0000
BAD_NOT_SUPPORTED: Final = 0x803D_0000
BAD_CONFIGURATION_ERROR: Final = 0x8089_0000
BAD_DEVICE_FAILURE: Final = 0x808B_0000
BAD_SENSOR_FAILURE: Final = 0x808C_0000
BAD_DATA_UNAVAILABLE: Final = 0x809E_0000

NAMES: Final[dict[int, str]] = {
    GOOD: "Good",
    UNCERTAIN_SENSOR_NOT_ACCURATE: "UncertainSensorNotAccurate",
    UNCERTAIN_ENGINEERING_UNITS_EXCEEDED: "UncertainEngineeringUnitsExceeded",
    BAD_COMMUNICATION_ERROR: "BadCommunicationError",
    BAD_TIMEOUT: "BadTimeout",
    BAD_NO_COMMUNICATION: "BadNoCommunication",
    BAD_WAITING_FOR_INITIAL_DATA: "BadWaitingForInitialData",
    BAD_NOT_SUPPORTED: "BadNotSupported",
    BAD_CONFIGURATION_ERROR: "BadConfigurationError",
    BAD_DEVICE_FAILURE: "BadDeviceFailure",
    BAD_SENSOR_FAILURE: "BadSensorFailure",
    BAD_DATA_UNAVAILABLE: "BadDataUnavailable",
}


def is_bad(quality: int) -> bool:
    """Return whether the value must not be used."""
    return bool(quality & BAD)


def name_of(quality: int) -> str:
    """Return the OPC UA name of a status code, or its hexadecimal form when it is none of ours."""
    return NAMES.get(quality, f"0x{quality:08X}")
