"""The demo corridor: five sites of the 43 km link, each with one gateway."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.demo import maps
from gateway.demo.script import COVERED, script
from gateway.demo.tables import At, GatewayText

__all__ = ["COVERED", "Site", "script", "sites", "write_sites"]

Ports = Callable[[], int]  # a free TCP port at every call
HOST: Final = "127.0.0.1"
MAX_TRIES: Final = 1000


@dataclass(frozen=True, slots=True)
class Site:
    """One site and its gateway: the text of gateway.toml, and where it belongs."""

    name: str
    gateway_id: str
    text: str
    path: Path


def write_sites(folder: Path, broker_url: str, ports: Ports) -> list[Path]:
    """Write every gateway.toml below a folder, one subfolder per site, and return their paths.

    ports  is called once per TCP link; the pseudo terminals of serial buses are linked beside the files
    """
    out = []
    for site in sites(folder, broker_url, ports):
        site.path.parent.mkdir(parents=True, exist_ok=True)
        site.path.write_text(site.text, encoding="utf-8")
        out.append(site.path)
    return out


def sites(folder: Path, broker_url: str, ports: Ports) -> list[Site]:
    """Return the sites; writes nothing."""
    out, fresh = [], _distinct(ports)
    for name, build in SITES.items():
        gateway = GatewayText(f"{name}-gw1", name, broker_url)
        build(_Yard(gateway, folder.absolute() / name, fresh))
        out.append(Site(name, gateway.id, gateway.text(), folder / name / "gateway.toml"))
    return out


def _distinct(ports: Ports) -> Ports:
    """Return an allocator that never repeats itself: the kernel may name a port again that nobody listens on yet."""
    given: set[int] = set()

    def next_port() -> int:
        for _ in range(MAX_TRIES):
            if (port := ports()) not in given:
                given.add(port)
                return port
        raise RuntimeError(f"no new port in {MAX_TRIES} tries, the last was {port}")

    return next_port


@dataclass(frozen=True, slots=True)
class _Yard:
    """A site in the making: its text, its folder, where ports come from."""

    text: GatewayText
    folder: Path
    ports: Ports

    def tcp(self, name: str, scheme: str = "tcp", **more: Any) -> str:
        """Add a link on a socket and return its name."""
        return self.text.link(f"{self.text.site}-{name}", f"{scheme}://{HOST}:{self.ports()}", **more)

    def bus(self, name: str) -> str:
        """Add an RS-485 bus on a pseudo terminal and return its name."""
        return self.text.link(f"{self.text.site}-{name}", f"rtu://{self.folder / name}?baudrate=19200&stopbits=2")


def limits(priority: int = 3, **given: float) -> Mapping[str, Any]:
    """Return the settings of a tag with limits, with a deadband of 1 % of the smallest of them and 1 s of delay."""
    deadband = min(abs(value) for value in given.values()) / 100.0
    return {**given, "deadband": round(deadband, 4), "on_delay_s": 1.0, "priority": priority}


GAS_ALARM: Final = {"high": 10.0, "high_high": 20.0, "priority": 1}
DOOR: Final = {"high": 0.5, "priority": 3}


def pump_station(yard: _Yard) -> None:
    """T1 pump station, T4 tank farm, T13 gas metering."""
    add, kp_m = yard.text.device, 0
    skid, at = yard.tcp("skid"), At("meter-skid", "pipe-a", kp_m)
    flow = {"mass_flow": limits(2, low=500.0, high=720.0), "temperature": limits(low=20.0, high=60.0)}
    for i in (1, 2, 3):
        add(f"ft-10{i}", skid, at, "endresshauser_proline", unit=i, tags=maps.CORIOLIS, settings=flow)
    add("ft-110", yard.tcp("ft-110"), at, "emerson_micromotion_slots", tags=maps.SLOTS)
    station = {
        "suction_pressure": limits(1, low_low=1.5, low=3.0),
        "discharge_pressure": limits(1, high=50.0, high_high=55.0),
        "water_cut": limits(high=1.0),
    }
    add("pt-100", yard.tcp("pt-100"), At("station", "pipe-a", kp_m), points=maps.STATION, measurement="station",
        period_s=0.5, settings=station)  # fmt: skip
    bus = yard.bus("bus0")
    machine = {
        "bearing_temp_de": {**limits(2, high=85.0, high_high=95.0), "rate": 3.0},
        "bearing_temp_nde": limits(2, high=85.0, high_high=95.0),
        **{f"winding_temp_{phase}": limits(2, high=110.0, high_high=125.0) for phase in "uvw"},
        "vibration_de": limits(2, high=4.5, high_high=7.1),
        "vibration_nde": limits(2, high=4.5, high_high=7.1),
        "running": {"low": 0.5, "priority": 1},
    }
    for i in (1, 2, 3):
        pump = At(f"pump-{i}", "pipe-a", kp_m)
        add(f"mlp-{i}", bus, pump, unit=i, points=maps.PUMP, measurement="pump", settings=machine)
        power = {"power_active_total": limits(2, high=4200.0), "current_l1": limits(high=450.0)}
        add(f"pm-{i}", yard.tcp(f"pm-{i}"), pump, "schneider_pm5000", tags=maps.MOTOR_METER, settings=power)
        add(f"gd-{i}", bus, pump, "pemtech_pt495", unit=10 + i, tags=["concentration", "status"],
            settings={"concentration": GAS_ALARM})  # fmt: skip
    shelter = yard.tcp("shelter")
    add("gd-21", shelter, At("shelter", "pipe-a", kp_m), "honeywell_midas", unit=21, tags=["status", "concentration"],
        settings={"concentration": GAS_ALARM})  # fmt: skip
    add("gd-22", shelter, At("shelter", "pipe-a", kp_m), "msa_ultima_x", unit=22,
        tags=["general_status", "fault_status", "gas_level_1", "gas_level_2", "temperature_1"],
        settings={"gas_level_1": GAS_ALARM, "gas_level_2": GAS_ALARM})  # fmt: skip
    add("aux-1", yard.tcp("aux"), At("station-service", "power-a", kp_m), "eastron_sdm630", tags=maps.LOAD_METER)
    add("ups-1", shelter, At("ups", "power-a", kp_m), "apc_nmc2", unit=30, tags=maps.UPS,
        settings={"battery_charge": limits(low=60.0)})  # fmt: skip
    _tank_farm(yard)
    _gas_metering(yard)
    _second_system(yard)


def _second_system(yard: _Yard) -> None:
    """Custody metering of the export line that several owners share, at its take-over point."""
    at, skid = At("custody-run-1", "pipe-b", 400), yard.tcp("custody")
    yard.text.device("ft-201", skid, at, "endresshauser_proline", unit=1, tags=maps.CORIOLIS)
    yard.text.device("ft-202", skid, at, "dynasonics_tfx_ultra", unit=2,
                     tags=["signal_strength", "flow_rate_cmh", "velocity", "temperature_1"])  # fmt: skip


def _tank_farm(yard: _Yard) -> None:
    add, kp_m, hub = yard.text.device, 600, yard.tcp("tank-hub")
    level = limits(1, low=2.0, high=13.5, high_high=14.5)
    add("lt-400", hub, At("tank-farm", "pipe-a", kp_m), "emerson_rosemount_2460", unit=1, period_s=5.0,
        settings={f"tank{i}_user1": level for i in (1, 2, 3)})  # fmt: skip
    for i in (4, 5):
        add(f"lt-40{i}", hub, At(f"tank-{i}", "pipe-a", kp_m), "emerson_rosemount_5900", unit=i, period_s=5.0,
            settings={"ullage": limits(1, low_low=1.5, low=2.5)})  # fmt: skip
    add("ft-450", yard.tcp("loading"), At("loading-arm-1", "pipe-a", kp_m), "dynasonics_tfx_ultra",
        tags=["signal_strength", "flow_rate_cmh", "velocity", "temperature_1", "net_total"])  # fmt: skip


def _gas_metering(yard: _Yard) -> None:
    add, at = yard.text.device, At("gas-run-1", "gas-a", 1_200)
    add("gm-600", yard.tcp("gas-600", "rtu+tcp"), at, "sick_flowsic600", tags=maps.GAS_METER,
        settings={"speed_of_sound": limits(2, low=380.0, high=420.0), "flow_line": limits(high=4000.0)})  # fmt: skip
    add("gm-500", yard.tcp("gas-500"), At("gas-run-2", "gas-a", 1_200), "sick_flowsic500",
        tags=["global_status", "volume_actual", "flow_base", "flow_actual", "pressure", "temperature", "gas_velocity",
              "speed_of_sound", "compressibility"],
        settings={"pressure": {**limits(2, low=45.0, high=60.0), "rate": 1.0}})  # fmt: skip
    add("fc-1", yard.tcp("gas-fc"), at, "rockwell_1758flo_enron", period_s=10.0,
        tags=[f"run0_{total}_total" for total in ("run_time", "mass", "volume_base", "volume_flowing")])  # fmt: skip


def quay(yard: _Yard) -> None:
    """T5 container quay, T6 yard with reefers and weighbridge."""
    add = yard.text.device
    crane_power = {"power_active_total": limits(2, high=2_500_000.0), "voltage_l1_n": limits(low=207.0, high=253.0)}
    for i, model in enumerate(("siemens_pac2200", "siemens_pac2200", "janitza_umg96rm_b23"), 1):
        add(f"crane-{i}", yard.tcp(f"crane-{i}"), At(f"crane-{i}", "port-a", 100 * i), model, settings=crane_power)
    for i in (1, 2):
        add(f"shore-{i}", yard.tcp(f"shore-{i}"), At(f"berth-{i}", "port-a", 150 * i), "janitza_umg604",
            settings={"voltage_l1_n": limits(2, low=3430.0, high=4190.0)})  # fmt: skip
    racks = yard.tcp("reefer-racks")
    rack = {"power_active_total": limits(2, low=5_000.0, high=160_000.0)}
    for i in range(1, 5):
        add(f"reefer-{i}", racks, At(f"reefer-rack-{i}", "port-a", 400 + 20 * i), "eastron_sdm630", unit=i,
            tags=maps.LOAD_METER, settings=rack)  # fmt: skip
    gust = {"wind_gust_1min": limits(1, high=15.0, high_high=20.0)}
    add("wind-q1", yard.tcp("wind-q1"), At("quay-mast", "port-a", 50), "thies_ultrasonic", settings=gust,
        tags=["wind_speed", "wind_speed_avg", "wind_speed_std", "wind_gust_1min", "wind_speed_pcomp"])  # fmt: skip
    add("met-q2", yard.tcp("met-q2"), At("harbour-office", "port-a", 600), "lufft_ws_umb", period_s=5.0,
        tags=["device_status", "humidity", "pressure", "wind_direction", "air_temperature", "wind_gust",
              "wind_speed_avg", "global_radiation_avg"],
        settings={"wind_gust": limits(1, high=15.0, high_high=20.0)})  # fmt: skip
    scale = {f"scale{i}_gross": {"high": 60_000.0} for i in (1, 2)}
    add("scale-1", yard.tcp("scale-1"), At("weighbridge-1", "port-a", 900), "diniargeo_dgt4x", settings=scale,
        tags=[f"scale{i}_{value}" for i in (1, 2) for value in ("status", "gross", "net")])  # fmt: skip
    add("scale-2", yard.tcp("scale-2"), At("weighbridge-2", "port-a", 910), "mettler_toledo_ind570",
        tags=["gross", "net", "tare", "rate", "scale_status"], settings={"gross": {"high": 60_000.0}})  # fmt: skip
    add("lights-1", yard.tcp("lights"), At("berth-lights", "port-a", 300), "carlogavazzi_em24_e1", period_s=5.0,
        tags=[*(f"voltage_{phase}_n" for phase in maps.PHASES), "power_active_total", "power_factor_total",
              "energy_import"])  # fmt: skip
    _sea_crossing(yard)


def _sea_crossing(yard: _Yard) -> None:
    """T12: the ferry that carries wagons across, over the port's radio link."""
    hub = yard.tcp("ferry")
    yard.text.device("ferry-dc", hub, At("ferry-1", "sea-a", 12_000), "victron_gx_battery", unit=1, period_s=10.0,
                     tags=maps.BATTERY, settings={"voltage": limits(2, low=47.0)})  # fmt: skip
    yard.text.device("ferry-tank", hub, At("ferry-1", "sea-a", 12_000), "emerson_rosemount_hmc", unit=2, period_s=10.0)


def railway(yard: _Yard) -> None:
    """T7 traction substation, T8 trackside nodes, T9 border yard."""
    add, kp_m = yard.text.device, 41_000
    _traction(yard, "s1", At("substation-1", "rail-a", kp_m))
    add("aux-s1", yard.tcp("aux"), At("station-service", "power-a", kp_m), "schneider_iem3000")
    hub = yard.tcp("nodes")
    for i in range(4):
        _track_node(yard, hub, 1 + i, f"t{i + 1}", At(f"node-{i + 1}", "rail-a", kp_m + 600 * i))
    for i in (1, 2):
        add(f"scale-r{i}", hub, At(f"border-scale-{i}", "rail-a", kp_m + 1800), "rinstrum_c500", unit=50 + i,
            tags=["gross", "net"])  # fmt: skip
    add("ups-t1", hub, At("ups-t1", "rail-a", kp_m), "apc_nmc2", unit=30, tags=maps.UPS,
        settings={"battery_charge": limits(low=60.0)})  # fmt: skip


def _traction(yard: _Yard, name: str, at: At) -> None:
    """Feeders, rectifier and battery of a traction substation; EN 50163 band of 25 kV."""
    band = {f"voltage_{phase}_n": limits(2, low_low=17_500.0, low=19_000.0, high=27_500.0, high_high=29_000.0)
            for phase in maps.PHASES}  # fmt: skip
    feeder = At(f"{at.asset}-feeder", at.line, at.kp_m)
    yard.text.device(f"feeder-{name}", yard.tcp(f"feeder-{name}"), feeder, "siemens_sicam_t", settings=band)
    hall = yard.tcp(f"hall-{name}")
    warm = {"transformer_temperature": limits(high=85.0, high_high=95.0), "earth_fault": {"high": 0.5, "priority": 1}}
    yard.text.device(
        f"rectifier-{name}", hall, at, unit=1, points=maps.RECTIFIER, measurement="rectifier", settings=warm
    )
    yard.text.device(f"battery-{name}", hall, at, "victron_gx_battery", unit=2, tags=maps.BATTERY,
                     settings={"voltage": limits(2, low=47.0, high=58.0)})  # fmt: skip


def _track_node(yard: _Yard, link: str, unit: int, name: str, at: At) -> None:
    """Hot box, rail and counter of one node, and the meter of its points heating."""
    boxes = {f"axle_box_{side}": limits(1, high=75.0, high_high=95.0) for side in ("left", "right")}
    node = {**boxes, "rail_temperature": limits(2, high=55.0), "door_open": DOOR, "counter_disturbed": DOOR}
    yard.text.device(f"node-{name}", link, at, unit=unit, points=maps.TRACK, measurement="trackside", settings=node)
    heating = At(f"points-heating-{name}", at.line, at.kp_m)
    yard.text.device(f"heating-{name}", link, heating, "eastron_sdm120", unit=unit + 100, tags=maps.HEATER_METER)


def link43(yard: _Yard) -> None:
    """T14: 43 km of rail, pipe, power and fibre side by side."""
    add = yard.text.device
    valve = {
        "pressure_upstream": limits(1, low=5.0, high=50.0),
        "pressure_downstream": limits(1, low=5.0, high=50.0),
        "cp_potential": {"low": -1.2, "high": -0.85, "deadband": 0.01, "priority": 3},
        "battery_voltage": limits(low=47.0),
        "valve_open": {"low": 0.5, "priority": 1},
        "door_open": DOOR,
    }
    for km in (0, 15, 30, 43):
        at, link = At(f"block-valve-{km:02d}", "pipe-a", 1000 * km), yard.tcp(f"bv-{km:02d}")
        add(f"bv-{km:02d}", link, at, unit=1, points=maps.VALVE, measurement="valve_station", settings=valve)
        add(f"bv-bat-{km:02d}", link, at, "victron_gx_battery", unit=2)
    for i, hub in enumerate([yard.tcp(f"track-{third}") for third in "abc"]):
        for j in range(3):
            km = 5 * (3 * i + j)
            _track_node(yard, hub, 1 + j, f"k{km:02d}", At(f"node-k{km:02d}", "rail-a", 1000 * km))
    _traction(yard, "k22", At("substation-k22", "rail-a", 22_000))
    hut = {
        "room_temperature": limits(high=32.0, high_high=40.0),
        "mains_ok": {"low": 0.5, "priority": 2},
        "door_open": DOOR,
    }
    for km in (0, 10, 20, 30, 40):
        at, link = At(f"fibre-hut-{km:02d}", "fibre-a", 1000 * km), yard.tcp(f"hut-{km:02d}")
        add(f"hut-{km:02d}", link, at, unit=1, points=maps.HUT, measurement="hut", settings=hut)  # fmt: skip
        add(f"hut-dc-{km:02d}", link, at, "victron_gx_system", unit=2,
            tags=["battery_voltage", "battery_current", "battery_soc", "dc_system_power",
                  *(f"grid_{phase}_power" for phase in maps.PHASES)])  # fmt: skip
    gust = limits(2, high=15.0, high_high=20.0)
    for name, km, model, tags in (
        (
            "wind-k12",
            12,
            "calypso_ulp",
            ["wind_speed_3s", "wind_direction_3s", "wind_speed_2min", "wind_gust", "status"],
        ),
        ("wind-k31", 31, "sokol_m_weather", ["air_temperature", "humidity", "wind_speed", "wind_direction"]),
    ):
        settings = {"wind_gust": gust} if "wind_gust" in tags else {}
        add(name, yard.tcp(name), At(f"mast-k{km}", "rail-a", 1000 * km), model, tags=tags, settings=settings)


def cable_landing(yard: _Yard) -> None:
    """T10: where a power cable comes ashore."""
    add, kp_m = yard.text.device, 0
    at = At("cable-landing", "cable-a", kp_m)
    add("pq-1", yard.tcp("pq-1"), at, "siemens_sicam_t",
        settings={"power_active_total": limits(2, high=118e6), "current_l1": limits(2, high=640.0)})  # fmt: skip
    hot = {f"temperature_ch{i}": limits(1, high=75.0, high_high=90.0) for i in range(1, 5)}
    add("joint-1", yard.tcp("joint-1"), At("cable-joint-1", "cable-a", 250), "lumasense_lumasmart", settings=hot)
    zones = maps.fibre_zones(16)
    warm = {zone["name"]: limits(2, high=75.0) for zone in zones if zone["name"].endswith("max")}
    add("dts-1", yard.tcp("dts-1"), At("cable-dts", "cable-a", kp_m), points=zones, measurement="fibre_thermometer",
        period_s=5.0, settings=warm)  # fmt: skip
    joints = {f"joint_temperature_{i}": limits(1, high=75.0, high_high=90.0) for i in (1, 2, 3)}
    add("rtu-1", yard.tcp("rtu-1"), At("cable-landing", "cable-a", kp_m), points=maps.LANDING, measurement="landing",
        settings=joints)  # fmt: skip
    bus, converter = yard.bus("bus0"), At("converter-aux", "power-a", kp_m)
    add("aux-c1", bus, converter, "camillebauer_aplus", unit=1)
    add("aux-c2", bus, converter, "abb_b23", unit=2,
        tags=["voltage_l1_n", "current_l1", "power_active_total", "frequency", "energy_import"])  # fmt: skip
    add("ups-c1", bus, At("ups-c1", "power-a", kp_m), "apc_nmc2", unit=3, tags=maps.UPS)


SITES: Final[dict[str, Callable[[_Yard], None]]] = {
    "ps1": pump_station,
    "port1": quay,
    "rail1": railway,
    "link43": link43,
    "cable1": cable_landing,
}
