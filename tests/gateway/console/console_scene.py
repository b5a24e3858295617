"""A believable corridor for looking at the screens: five lines, a link down, a gateway gone, alarms of every kind.

`PYTHONPATH=. python tests/gateway/console/console_scene.py` serves it until Ctrl-C.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from console_bench import Broker, running
from console_fake import FakeGateway, connected, device, own_alarm, tag

from drivers.quality import BAD_SENSOR_FAILURE, UNCERTAIN_ENGINEERING_UNITS_EXCEEDED
from gateway.history.store import Series, Trend
from gateway.wire.catalog import CatalogDevice
from gateway.wire.events import AlarmRecord
from gateway.wire.topics import GatewayAddress
from tests.gateway.ledgers import boot_report

S = 1_000_000_000
WEST = GatewayAddress("link43", "ps1", "ps1-gw1")
EAST = GatewayAddress("link43", "bv4", "bv4-gw1")
RAIL = GatewayAddress("link43", "rail", "rail-gw1")
PORT = GatewayAddress("link43", "port", "port-gw1")


def _valve(name: str, kp_m: int, link: str) -> CatalogDevice:
    pressure = tag("pressure", "bar", span=(0, 100), low=18.0, high=62.0)
    return device(name, "pipe-a", kp_m, pressure, tag("battery", "V", 10, low=23.5), link=link)


def _station(name: str, kp_m: int, link: str) -> CatalogDevice:
    flow = tag("flow", "m3/h", span=(0, 12000), low=5500, high=8600)
    more = (tag("density", "kg/m3", low=780, high=950), tag("temperature", "°C", 5, high=55))
    return device(
        name, "pipe-a", kp_m, tag("pressure", "bar", span=(0, 100), low=18.0, high=62.0), flow, *more, link=link
    )


def _hut(name: str, kp_m: int, link: str) -> CatalogDevice:
    return device(
        name, "fibre-a", kp_m, tag("battery", "V", 10, low=46, high=57), tag("climate", "°C", 10, high=40), link=link
    )


def _rail(name: str, kp_m: int) -> CatalogDevice:
    return device(
        name,
        "rail-a",
        kp_m,
        tag("rail_temperature", "°C", 5, high=55),
        tag("air_temperature", "°C", 10),
        link="trackside",
    )


DEVICES: dict[GatewayAddress, list[CatalogDevice]] = {
    WEST: [
        _station("ft-101", 0, "skid-a"),
        device(
            "pm-101",
            "pipe-a",
            60,
            tag("pump_power", "kW", high=2400, high_high=2600),
            tag("bearing", "°C", 5, high=85),
            link="skid-b",
        ),
        *(_valve(f"bv-{i}", kp, "radio-a") for i, kp in enumerate((5200, 10400, 15100), 1)),
        *(_hut(f"hut-{i}", kp, "skid-b") for i, kp in enumerate((900, 10900), 1)),
    ],
    EAST: [
        *(_valve(f"bv-{i}", kp, "radio-b") for i, kp in enumerate((20300, 25600, 30800), 4)),
        _valve("bv-7", 36100, "radio-c"),
        _station("ft-201", 42800, "skid-a"),
        *(_hut(f"hut-{i}", kp, "skid-a") for i, kp in enumerate((21500, 31700, 41900), 3)),
        *(
            device(f"dts-{i}", "cable-a", kp, tag("zone_max", "°C", 10, high=70, high_high=85), link="skid-a")
            for i, kp in enumerate((2300, 12000, 22000, 32000, 42000), 1)
        ),
        device(
            "pq-1",
            "cable-a",
            2300,
            tag("load", "%", high=95),
            tag("frequency", "Hz", low=49.8, high=50.2),
            link="skid-a",
        ),
    ],
    RAIL: [
        *(_rail(f"rt-{i}", 400 + 5000 * i) for i in range(1, 9)),
        device(
            "tss-1", "rail-a", 7400, tag("traction", "MW", high=9), tag("voltage", "kV", low=19, high=27.5), link="tss"
        ),
        device(
            "hb-12",
            "rail-a",
            12100,
            tag("hot_box_left", "°C", low=-20, high=95),
            tag("hot_box_right", "°C", high=95),
            link="trackside",
        ),
        device(
            "hb-33",
            "rail-a",
            33300,
            tag("hot_box_left", "°C", low=-20, high=95),
            tag("hot_box_right", "°C", high=95),
            link="trackside",
        ),
    ],
    PORT: [
        device(
            "wind-1", "port-a", None, tag("gust", "m/s", high=15, high_high=20), tag("mean_10min", "m/s"), link="mast"
        ),
        device("crane-1", "port-a", None, tag("crane_power", "kW", high=1900), link="quay"),
        device("crane-2", "port-a", None, tag("crane_power", "kW", high=1900), link="quay"),
        device("shore-1", "port-a", None, tag("shore_power", "MW", high=8), tag("cos_phi", "1", low=0.85), link="quay"),
    ],
}
BASE = {
    "flow": 7868, "density": 861.2, "temperature": 18.4, "battery": 25.8, "pump_power": 2110, "bearing": 61,
    "climate": 24, "zone_max": 41, "load": 63, "frequency": 50.0, "rail_temperature": 31, "air_temperature": 14.5,
    "traction": 4.1, "voltage": 26.1, "hot_box_left": 38, "hot_box_right": 39, "gust": 11.4, "mean_10min": 9.1,
    "crane_power": 840, "shore_power": 2.1, "cos_phi": 0.94,
}  # fmt: skip


def value(one: CatalogDevice, name: str, t_s: float) -> float:
    """Return a plausible value: a pressure that falls along the line, the rest around its base, slowly moving."""
    phase = sum(map(ord, one.name + name))
    wave = math.sin(t_s / (40 + phase % 37) + phase)
    if name == "pressure":
        return round(56.4 - 0.62 * (one.kp_m or 0) / 1000 + 0.25 * wave + random.gauss(0, 0.02), 3)
    base = 51.6 if one.name.startswith("hut") and name == "battery" else BASE[name]
    if one.name == "dts-1":
        base = 74.5
    return round(base * (1 + 0.012 * wave + random.gauss(0, 0.0008)), 4)


class SceneStore:
    """History by formula: a day of every tag, with a hole of ten minutes two hours ago."""

    async def write(self, lines: bytes) -> None:
        raise NotImplementedError

    async def read(self, series: Series, start_ns: int, stop_ns: int, max_points: int) -> Trend:
        one = next(d for devices in DEVICES.values() for d in devices if d.name == series.device)
        width = max((stop_ns - start_ns) // max_points, S)
        times = np.arange(start_ns - start_ns % width, stop_ns, width, dtype=np.int64)
        now = time.time_ns()
        times = times[(times < now) & ~((times > now - 7800 * S) & (times < now - 7200 * S))]
        mean = np.array([value(one, series.tag, t / S) for t in times.tolist()])
        spread = 0.0 if width <= S else 0.004
        return Trend(times, mean * (1 - spread), mean, mean * (1 + spread))

    async def close(self) -> None:
        return


def alarm(one: CatalogDevice, name: str, kind: str, priority: int, ago_s: float, state: str, value: float | None,
          limit: float | None, text: str, by: str = "") -> AlarmRecord:  # fmt: skip
    unit = next((t.unit for t in one.tags if t.name == name), "")
    since = time.time_ns() - int(ago_s * S)
    place: dict[str, Any] = {"line": one.line, "kp_m": one.kp_m, "asset": one.asset, "by": by}
    return AlarmRecord(one.name, name, kind, state, priority, since, since, value, limit, unit, text, **place)


def find(name: str) -> CatalogDevice:
    return next(d for devices in DEVICES.values() for d in devices if d.name == name)


async def set_up(gateways: list[FakeGateway]) -> None:
    """Bring the standing alarms, dead parts and histories of the scene onto the broker."""
    west, east, rail, port = gateways
    for gateway in gateways:
        for one in gateway.devices:
            await gateway.frame(one.name, {t.name: value(one, t.name, time.time()) for t in one.tags})
    await west.alarm(alarm(find("bv-3"), "battery", "low", 3, 5400, "acked", 23.2, 23.5, "battery voltage low", "anna"))
    await west.alarm(
        alarm(find("ft-101"), "density", "frozen", 4, 900, "unacked", 861.2, None, "value has not moved for 300 frames")
    )
    await east.alarm(alarm(find("dts-1"), "zone_max", "high", 2, 140, "unacked", 74.5, 70, "zone temperature high"))
    await east.alarm(
        alarm(find("bv-7"), "pressure", "communication", 2, 65, "unacked", None, None, "link radio-c gives no answer")
    )
    await rail.alarm(
        alarm(find("hb-33"), "hot_box_left", "high_high", 1, 21, "unacked", 97.8, 95, "hot box left, axle 17")
    )
    await rail.alarm(alarm(find("tss-1"), "voltage", "low", 3, 2700, "rtn_unacked", 18.8, 19, "line voltage low"))
    await rail.alarm(
        alarm(
            find("rt-4"),
            "rail_temperature",
            "rate",
            3,
            7300,
            "shelved",
            44.0,
            None,
            "rises faster than 5 K/min",
            "boris",
        )
    )
    await port.alarm(
        alarm(find("wind-1"), "gust", "high", 2, 400, "acked", 16.1, 15, "gust over warning limit", "anna")
    )
    await port.alarm(own_alarm("spool", "acked"))
    await port.announce("offline")
    await east.silence("bv-7")
    await rail.quality("rt-6", "air_temperature", BAD_SENSOR_FAILURE, "sentinel 0x8000")


async def tell_ledger(west: FakeGateway) -> None:
    """Publish what the database has: of the west nearly all, of the east a backlog on its way, of the rail a loss."""
    now = time.time_ns()
    absent = {"ft-101": {"BadTimeout": 37}, "bv-2": {"BadNoCommunication": 3}}
    await west.ledger(
        boot_report(WEST.gateway, 6, why={"uncommitted": [(4981, 4983)]}),
        boot_report(WEST.gateway, 7, why={"dropped": [(120, 131)]}, absent=absent, complete_time=now),
        boot_report(EAST.gateway, 7, missing=[(661, 900)], waiting=[(661, 900)], complete_time=now - 240 * S),
        boot_report(RAIL.gateway, 7, missing=[(301, 306), (320, 325)], complete_time=now - 600 * S),
        boot_report(PORT.gateway, 7, complete_time=now - 7200 * S),
    )


async def play(gateways: list[FakeGateway], stop: asyncio.Event) -> None:
    """Publish every due tag until stopped; bv-5 falls silent, the port is gone."""
    west, east, rail, _ = gateways
    n = 0
    while not stop.is_set():
        for gateway in (west, east, rail):
            for one in gateway.devices:
                if one.name == "bv-7" or (one.name == "hut-2" and n > 3):
                    continue
                due = [
                    t.name
                    for t in one.tags
                    if n % round(t.period_s) == 0 and (one.name, t.name) != ("rt-6", "air_temperature")
                ]
                if due:
                    values = {name: value(one, name, time.time()) for name in due}
                    if one.name == "hb-33" and "hot_box_left" in values:
                        values["hot_box_left"] += 59
                    await gateway.frame(one.name, values)
        if n % 5 == 0:
            await west.health({"skid-a": "up", "skid-b": "up", "radio-a": "up"})
            await east.health({"skid-a": "up", "radio-b": "up", "radio-c": "down"})
            await rail.health({"trackside": "up", "tss": "up"}, clock={"state": "holdover", "offset_s": 0.0123})
            await tell_ledger(west)
        if n == 2:
            await west.quality("pm-101", "bearing", UNCERTAIN_ENGINEERING_UNITS_EXCEEDED, "outside range")
        n += 1
        try:
            await asyncio.wait_for(stop.wait(), 1.0)
        except TimeoutError:
            continue


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(Path(folder))
        broker.start()
        try:
            async with (
                connected(broker.port, *DEVICES.items()) as gateways,
                running(broker.spec, SceneStore()) as console,
            ):
                print(console.url, flush=True)
                await set_up(gateways)
                await play(gateways, console.stop)
        finally:
            broker.stop()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(0)
