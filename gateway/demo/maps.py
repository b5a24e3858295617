"""Register maps of the remote terminal units on the corridor, for which no vendor has a profile; and tags to read."""

from __future__ import annotations

from typing import Any, Final

from gateway.demo.tables import floats, point

Points = list[dict[str, Any]]


def bits(address: int, *names: str) -> Points:
    """Return status bits that share one register."""
    return [point(name, address, type="bool", bit=i, kind="state") for i, name in enumerate(names)]


STATION: Final = floats(
    ("suction_pressure", "bar"),
    ("discharge_pressure", "bar"),
    ("header_temperature", "degC"),
    ("density", "kg/m3"),
    ("water_cut", "%"),
)

PUMP: Final = [
    *floats(
        ("bearing_temp_de", "degC"),
        ("bearing_temp_nde", "degC"),
        ("winding_temp_u", "degC"),
        ("winding_temp_v", "degC"),
        ("winding_temp_w", "degC"),
        ("vibration_de", "mm/s"),
        ("vibration_nde", "mm/s"),
        ("seal_pressure", "bar"),
        ("speed", "rpm"),
    ),
    *bits(20, "running", "tripped"),
]

VALVE: Final = [
    *floats(
        ("pressure_upstream", "bar"),
        ("pressure_downstream", "bar"),
        ("oil_temperature", "degC"),
        ("valve_position", "%"),
        ("cp_potential", "V"),
        ("battery_voltage", "V"),
    ),
    *bits(30, "valve_open", "valve_closed", "door_open", "mains_ok"),
]

TRACK: Final = [
    *floats(
        ("axle_box_left", "degC"),
        ("axle_box_right", "degC"),
        ("rail_temperature", "degC"),
        ("air_temperature", "degC"),
        ("cabinet_temperature", "degC"),
    ),
    point("train_count", 20, type="uint32", kind="counter", width=32),
    *bits(30, "track_occupied", "counter_disturbed", "heating_fault", "door_open"),
]

RECTIFIER: Final = [
    *floats(("transformer_temperature", "degC"), ("rectifier_temperature", "degC"), ("rectifier_voltage", "V")),
    *bits(10, "earth_fault", "door_open", "feeder_tripped"),
]

HUT: Final = [
    *floats(
        ("room_temperature", "degC"),
        ("humidity", "%"),
        ("rectifier_voltage", "V"),
        ("rectifier_current", "A"),
        ("fibre_loss", "dB"),
    ),
    *bits(20, "door_open", "mains_ok", "climate_fault"),
]

LANDING: Final = [
    *floats(("joint_temperature_1", "degC"), ("joint_temperature_2", "degC"), ("joint_temperature_3", "degC")),
    *floats(("sea_temperature", "degC"), ("sheath_current", "A"), start=6),
]


def fibre_zones(n: int) -> Points:
    """Return the mean and maximum temperature of every zone of a distributed fibre thermometer."""
    names = [(f"zone_{i:02d}_{kind}", "degC") for i in range(1, n + 1) for kind in ("mean", "max")]
    return floats(*names)


PHASES: Final = ("l1", "l2", "l3")
MOTOR_METER: Final = [
    *(f"current_{phase}" for phase in PHASES),
    "voltage_l1_l2", "voltage_l2_l3", "voltage_l3_l1", "voltage_avg_ll",
    "power_active_total", "power_reactive_total", "power_apparent_total", "power_factor_total_4q",
    "frequency", "energy_import", "energy_reactive_import",
    *(f"thd_current_{phase}" for phase in PHASES),
]  # fmt: skip
LOAD_METER: Final = [
    *(f"voltage_{phase}_n" for phase in PHASES), *(f"current_{phase}" for phase in PHASES),
    *(f"power_active_{phase}" for phase in PHASES),
    "power_active_total", "power_apparent_total", "power_reactive_total", "power_factor_total",
    "frequency", "energy_import", "energy_reactive_import",
]  # fmt: skip
HEATER_METER: Final = ["voltage", "current", "power_active", "power_factor", "frequency", "energy_import"]
CORIOLIS: Final = [
    "mass_flow", "temperature", "totalizer1", "system_condition",
    "scan_value_00", "scan_value_01", "scan_value_03", "scan_value_04",
]  # fmt: skip
SLOTS: Final = [f"slot_{i:02d}_value" for i in range(7)]
BATTERY: Final = [
    "power", "voltage", "current", "temperature", "mid_voltage", "soc",
    "alarm_any", "energy_discharged", "energy_charged", "time_to_go",
]  # fmt: skip
UPS: Final = [
    "battery_charge",
    "runtime_left",
    "battery_voltage",
    "temperature",
    "load",
    "output_voltage",
    "input_voltage",
]
GAS_METER: Final = [
    "status", *(f"path{i}_status" for i in range(1, 5)), *(f"path{i}_samples" for i in range(1, 5)),
    "volume_positive", "volume_positive_error", "flow_line", "flow_base", "speed_of_sound", "gas_velocity",
    *(f"path{i}_speed_of_sound" for i in range(1, 5)), *(f"path{i}_gas_velocity" for i in range(1, 5)),
]  # fmt: skip
