"""Thirty days of the demo corridor in virtual time: with operations, and with one anomaly of each kind at every site.

What detectors are judged by: without the script no alarm is right, with it every one of its faults is to be found.

    for site in month(folder):
        history = site.history(injected=True)
        for period_s, columns in site.by_period(history).items():
            for times_s, values in history.blocks(site.origin_s, site.end_s, period_s, columns):
                ...
        history.injected(site.end_s)   what was done, where and when
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from drivers.sim.device import MeterSpec
from drivers.sim.faults import Fault, FaultScript
from drivers.sim.history import History
from drivers.sim.signals import DAY_S
from gateway.demo.fleet import meters
from gateway.demo.sites import sites
from gateway.model import config
from gateway.model.corridor import GatewaySpec

DAYS: Final = 30
QUIET_DAYS: Final = 8  # what the detectors may learn from before anything is injected
ORIGIN_S: Final = 1_767_571_200.0  # 2026-01-05, a Monday, 0:00 UTC
SEED: Final = 1


def _at(
    day: int, hour: float, duration_s: float, kind: str, name: str, device: str, tag: str = "", **parameters: float
) -> Fault:
    return Fault(kind, name, device, tag, day * DAY_S + hour * 3600.0, duration_s, parameters=parameters)


def _drift(day: int, name: str, device: str, tag: str, total: float) -> Fault:
    """Return a drift of one day, from midnight to midnight, by `total` in the tag's unit."""
    return _at(day, 0.0, DAY_S, "drift", name, device, tag, per_s=total / DAY_S)


# By site; all on gauges that are never quite still. A drift is at least 8 sd of what the tag does within a day, a spike
# lasts three polls. A bias is larger than anything the tag does within minutes.
FAULTS: Final[Mapping[str, tuple[Fault, ...]]] = {
    "ps1": (
        _at(8, 10.2, 3600, "freeze", "stuck discharge transmitter", "pt-100", "discharge_pressure"),
        _at(9, 15.6, 3, "spike", "flow spike", "ft-102", "mass_flow", size=60.0, samples=3),
        _at(11, 3.1, 4 * 3600, "step", "gas pressure steps", "gm-500", "pressure", size=1.5),
        _drift(13, "water cut creeps", "pt-100", "water_cut", 0.12),
        _at(16, 9.4, 3600, "noise", "noisy densitometer", "ft-103", "scan_value_01", factor=5.0),
        _at(18, 20.3, 3600, "stuck_high", "sound path at its end", "gm-600", "path2_speed_of_sound", value=500.0),
        _at(20, 6.7, 7200, "stuck_low", "dead accelerometer", "mlp-3", "vibration_de", value=0.0),
        _at(22, 13.5, 900, "limit", "suction runs low", "pt-100", "suction_pressure", value=3.0, ramp_s=60.0),
        _at(24, 17.8, 1800, "nan", "thermometer lost", "ft-110", "slot_02_value"),
        _at(26, 2.9, 600, "silent", "motor meter off line", "pm-1"),
        _at(28, 11.3, 600, "exception", "load meter fails", "aux-1", code=4.0),
    ),
    "port1": (
        _at(8, 14.1, 3600, "freeze", "crane meter holds a phase", "crane-2", "voltage_l2_n"),
        _at(10, 7.9, 3, "spike", "rack voltage spike", "reefer-1", "voltage_l1_n", size=60.0, samples=3),
        _at(12, 1.7, 4 * 3600, "step", "loose voltage tap", "reefer-3", "voltage_l3_n", size=-15.0),
        _drift(14, "voltage input creeps", "reefer-2", "voltage_l2_n", 6.0),
        _at(16, 10.4, 3600, "noise", "loose terminal", "crane-1", "voltage_l3_n", factor=5.0),
        _at(19, 22.2, 7200, "stuck_high", "loop current at its end", "ferry-tank", "tv", value=100.0),
        _at(21, 4.6, 3600, "stuck_low", "phase lost", "shore-2", "voltage_l1_n", value=0.0),
        _at(23, 16.3, 900, "limit", "overvoltage ashore", "shore-1", "voltage_l1_n", value=4190.0, ramp_s=30.0),
        _at(25, 9.5, 1800, "nan", "ferry thermometer lost", "ferry-tank", "sv"),
        _at(27, 19.4, 600, "silent", "weather station off line", "met-q2"),
        _at(28, 5.8, 600, "exception", "rack meter fails", "reefer-4", code=4.0),
    ),
    "rail1": (
        _at(8, 3.3, 3600, "freeze", "transformer thermometer holds", "rectifier-s1", "transformer_temperature"),
        _at(9, 12.7, 3, "spike", "rail thermometer spike", "node-t2", "rail_temperature", size=25.0, samples=3),
        _at(11, 18.2, 3 * 3600, "step", "voltage tap", "aux-s1", "voltage_l2_n", size=12.0),
        _drift(13, "rectifier warms up", "rectifier-s1", "rectifier_temperature", 8.0),
        _at(16, 5.1, 3600, "noise", "noisy air thermometer", "node-t3", "air_temperature", factor=5.0),
        _at(18, 14.9, 3600, "stuck_high", "rail thermometer broken", "node-t4", "rail_temperature", value=80.0),
        _at(20, 23.2, 3600, "stuck_low", "rectifier voltage lost", "rectifier-s1", "rectifier_voltage", value=0.0),
        _at(22, 8.4, 600, "limit", "hot box", "node-t1", "axle_box_left", value=75.0, ramp_s=20.0),
        _at(24, 2.6, 1800, "nan", "air thermometer lost", "node-t1", "air_temperature"),
        _at(26, 15.7, 600, "silent", "feeder meter off line", "feeder-s1"),
        _at(28, 20.1, 600, "exception", "heating meter fails", "heating-t2", code=4.0),
    ),
    "link43": (
        _at(8, 6.4, 3600, "freeze", "valve transmitter holds", "bv-15", "pressure_upstream"),
        _at(10, 21.6, 3, "spike", "oil thermometer spike", "bv-30", "oil_temperature", size=15.0, samples=3),
        _at(12, 11.8, 4 * 3600, "step", "shunt of a rectifier", "hut-20", "rectifier_current", size=3.0),
        _drift(14, "cathodic protection creeps", "bv-43", "cp_potential", -0.06),
        _at(16, 16.5, 3600, "noise", "noisy hygrometer", "hut-10", "humidity", factor=5.0),
        _at(18, 0.8, 3600, "stuck_high", "transformer probe broken", "rectifier-k22", "transformer_temperature",
            value=150.0),
        _at(20, 9.9, 7200, "stuck_low", "fibre meter dead", "hut-30", "fibre_loss", value=0.0),
        _at(22, 19.3, 900, "limit", "block valve overpressure", "bv-00", "pressure_upstream", value=50.0, ramp_s=20.0),
        _at(24, 13.2, 1800, "nan", "rail thermometer lost", "node-k20", "rail_temperature"),
        _at(26, 4.4, 600, "silent", "mast off line", "wind-k31"),
        _at(28, 17.5, 600, "exception", "feeder meter fails", "feeder-k22", code=4.0),
    ),
    "cable1": (
        _at(8, 20.7, 3600, "freeze", "joint thermometer holds", "rtu-1", "joint_temperature_1"),
        _at(10, 4.3, 15, "spike", "zone spike", "dts-1", "zone_04_max", size=25.0, samples=3),
        _at(12, 9.1, 3 * 3600, "step", "fibre probe off", "joint-1", "temperature_ch2", size=12.0),
        _drift(14, "sea thermometer creeps", "rtu-1", "sea_temperature", 2.5),
        _at(16, 13.6, 3600, "noise", "noisy probe", "joint-1", "signal_ch3", factor=5.0),
        _at(18, 17.2, 3600, "stuck_high", "voltage input at its end", "aux-c1", "voltage_l3_n", value=300.0),
        _at(20, 2.5, 7200, "stuck_low", "sheath current lost", "rtu-1", "sheath_current", value=0.0),
        _at(22, 11.7, 3600, "limit", "hot joint", "rtu-1", "joint_temperature_2", value=75.0, ramp_s=600.0),
        _at(24, 22.8, 1800, "nan", "probe lost", "joint-1", "temperature_ch4"),
        _at(26, 8.3, 600, "silent", "quality meter off line", "pq-1"),
        _at(28, 15.4, 600, "exception", "converter meter fails", "aux-c2", code=4.0),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MonthSite:
    """One site of the corridor, its meters and what will go wrong there; times in Unix seconds."""

    name: str
    spec: GatewaySpec
    meters: tuple[MeterSpec, ...]
    script: FaultScript
    seed: int = SEED
    origin_s: float = ORIGIN_S

    @property
    def end_s(self) -> float:
        """When the thirty days are over."""
        return self.origin_s + DAYS * DAY_S

    def history(self, *, injected: bool, operations: bool = True) -> History:
        """Return what its meters show, with or without the script."""
        script = self.script if injected else None
        return History(self.meters, seed=self.seed, origin_s=self.origin_s, script=script, operations=operations)

    def by_period(self, history: History) -> dict[float, list[int]]:
        """Return the columns of a history that are tags of the gateway, by the period at which it polls them."""
        periods = {(device.name, tag.name): tag.period_s for device in self.spec.devices for tag in device.tags}
        found: dict[float, list[int]] = {}
        for number, series in enumerate(history.columns):
            if (place := (series.device, series.tag)) in periods:
                found.setdefault(periods[place], []).append(number)
        return found


def month(folder: Path, *, seed: int = SEED, origin_s: float = ORIGIN_S) -> list[MonthSite]:
    """Return every site; writes its gateway.toml below the folder, because only a file can be checked."""
    ports = itertools.count(20_000)  # nothing will listen
    out = []
    for site in sites(folder, "mqtt://127.0.0.1:1883", lambda: next(ports)):
        site.path.parent.mkdir(parents=True, exist_ok=True)
        site.path.write_text(site.text, encoding="utf-8")
        spec = config.load_gateway(site.path)
        script = FaultScript(FAULTS[site.name], f"month of {site.name}")
        out.append(MonthSite(site.name, spec, tuple(meters([spec])), script, seed, origin_s))
    return out
