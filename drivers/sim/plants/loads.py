"""What an electricity meter feeds: active power as a function of time, by the use that its name and asset tell."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from drivers.sim import columns
from drivers.sim.plants.operations import HOUR_S, Schedule, is_shift, people, traffic, weekend
from drivers.sim.plants.pipeline import NOMINAL_W, Pipeline, pump_of
from drivers.sim.plants.place import Place
from drivers.sim.plants.weather import Weather
from drivers.sim.signals import Signal, cycles, daily, duty, ramp, smooth, uniform, wander, white

LOW_VOLTAGE: Final = 230.0  # phase to neutral
METER_NOISE: Final = 0.002  # share of the reading


@dataclass(frozen=True, slots=True)
class Load:
    """A consumer. power_w may be negative (regeneration); mean_w is its long-run mean; volts is phase to neutral."""

    power_w: Signal
    mean_w: float
    peak_w: float
    volts: float = LOW_VOLTAGE
    power_factor: float = 0.95
    swing: float = 0.006  # slow movement of the voltage, share


def load_of(place: Place) -> Load:
    """Return the load behind a meter; a building when nothing in its name says otherwise."""
    for words, make in LOADS:
        if place.is_called(words):
            return make(place)
    return building(place)


def building(place: Place, mean_w: float = 18_000.0) -> Load:
    """Offices, pumps' auxiliaries, anything with people in it: more by day."""
    day, drift, noise = daily(12.0), wander(place.key("load"), 900.0), white(place.key("power"))
    if place.world.operations:
        return Load(
            lambda t: mean_w * (0.75 + 0.5 * people(t) + 0.02 * drift(t)) * (1.0 + 0.004 * noise(t)),
            mean_w,
            1.3 * mean_w,
        )
    return Load(
        lambda t: mean_w * (1.0 + 0.25 * day(t) + 0.02 * drift(t)) * (1.0 + 0.004 * noise(t)), mean_w, 1.3 * mean_w
    )


def pump(place: Place) -> Load:
    """One of three main line pumps on 6 kV: hydraulic power at 82 % efficiency follows flow and head."""
    line, noise = place.world.plant(Pipeline, place.meter.line), white(place.key("power"))
    kp_m = place.meter.kp_m
    if place.world.operations:
        pump_number = pump_of(place)
        return Load(
            lambda t: line.one_pump_w(kp_m, pump_number, t) * (1.0 + METER_NOISE * noise(t)),
            NOMINAL_W / 3.0,
            1.2 * NOMINAL_W / 3.0,
            6000.0 / math.sqrt(3.0),
            0.89,
        )
    mean_w = line.pump_power_w(kp_m, place.world.origin_s) / 3.0
    return Load(
        lambda t: line.pump_power_w(kp_m, t) / 3.0 * (1.0 + METER_NOISE * noise(t)),
        mean_w,
        1.1 * mean_w,
        6000.0 / math.sqrt(3.0),
        0.89,
    )


def crane(place: Place) -> Load:
    """A quay crane: hoist 0.5-2 MW for 10-30 s, trolley, lowering feeds back, cycles of about 2 min."""
    key, noise = place.key("hoist"), white(place.key("power"))
    cycle = cycles(key, 120.0)

    def power_w(t: float) -> float:
        n, since = cycle(t)
        lift_w = 0.5e6 + 1.4e6 * uniform(key + 1, n)
        at_work = 1.0
        if place.world.operations:  # two shifts a day, not every one of them with this crane
            begin_s = t - since
            turn = columns.whole((begin_s - 6 * HOUR_S) / (8 * HOUR_S))
            at_work = is_shift(begin_s) * (uniform(key + 3, turn) < 0.8)
            lift_w = lift_w * at_work
        lift_s = 12.0 + 14.0 * uniform(key + 2, n)
        trolley_s, lower_s = lift_s + 25.0, lift_s + 45.0
        p = 38e3 + lift_w * (ramp(since, 3.0) - ramp(since - lift_s, 2.0))
        p += 110e3 * at_work * (ramp(since - lift_s, 2.0) - ramp(since - trolley_s, 2.0))
        p -= 0.38 * lift_w * (ramp(since - trolley_s, 3.0) - ramp(since - lower_s, 2.0))
        return p * (1.0 + 0.01 * noise(t))

    return Load(power_w, 190e3, 2.1e6, LOW_VOLTAGE, 0.97, 0.01)


def shore(place: Place) -> Load:
    """Shore power: a ship of 1-5 MW connects and leaves in steps, some hours each."""
    key, drift, noise = place.key("ship"), wander(place.key("hotel"), 600.0), white(place.key("power"))
    cycle = cycles(key, 5 * 3600.0)
    if place.world.operations:
        call = Schedule(
            place.world, "ship's call", place.meter.asset, 22 * HOUR_S, (8 * HOUR_S, 15 * HOUR_S), jitter=0.3
        )

        def hotel_w(t: float) -> float:
            n, _ = call.at(t)
            ship_w = (1.0e6 + 4.0e6 * call.draw(n, 0)) * (0.85 + 0.1 * people(t) + 0.02 * drift(t))
            return (9e3 + ship_w * call.during(t, 20.0)) * (1.0 + METER_NOISE * noise(t))

        return Load(hotel_w, 2.1e6, 5.2e6, 6600.0 / math.sqrt(3.0), 0.86)

    def power_w(t: float) -> float:
        n, since = cycle(t)
        ship_w = 1.0e6 + 4.0e6 * uniform(key + 1, n)
        on = ramp(since, 20.0) - ramp(since - 3.6 * 3600.0, 20.0)
        return (9e3 + ship_w * on * (1.0 + 0.02 * drift(t))) * (1.0 + METER_NOISE * noise(t))

    return Load(power_w, 2.1e6, 5.2e6, 6600.0 / math.sqrt(3.0), 0.86)


REEFERS_PER_RACK: Final = 24
REEFER_W: Final = 4_400.0


def reefers(place: Place) -> Load:
    """A rack of 24 reefers in six groups whose compressors cycle together; fans never stop."""
    groups = [duty(place.key("group", i), 420.0 + 35.0 * i, 0.45, 4.0) for i in range(6)]
    noise, per_group = white(place.key("power")), REEFERS_PER_RACK / len(groups) * REEFER_W

    if place.world.operations:
        stock = smooth(place.key("stock"), 14 * HOUR_S)  # one is plugged in or out every hour or so

        def plugged_w(t: float) -> float:
            plugged = columns.whole(17.5 + 6.5 * stock(t)) / REEFERS_PER_RACK
            return (14e3 + plugged * per_group * sum(group(t) for group in groups)) * (1.0 + 0.004 * noise(t))

        return Load(plugged_w, 14e3 + 0.32 * REEFERS_PER_RACK * REEFER_W, 125e3, LOW_VOLTAGE, 0.84)

    def power_w(t: float) -> float:
        return (14e3 + per_group * sum(group(t) for group in groups)) * (1.0 + 0.004 * noise(t))

    return Load(power_w, 14e3 + 0.45 * REEFERS_PER_RACK * REEFER_W, 125e3, LOW_VOLTAGE, 0.84)


def lights(place: Place) -> Load:
    """Mast lights of a berth: on from dusk till dawn, a little standby by day."""
    day, noise = daily(12.0), white(place.key("power"))
    return Load(lambda t: (3e3 + 60e3 * ramp(0.1 - day(t), 0.12)) * (1.0 + 0.004 * noise(t)), 33e3, 65e3)


def traction(place: Place) -> Load:
    """A 25 kV feeder: trains draw 2-10 MW for minutes, feed back while braking; some 0.3 MW of auxiliaries stay."""
    key, noise = place.key("train"), white(place.key("power"))
    cycle = cycles(key, 540.0)

    def power_w(t: float) -> float:
        n, since = cycle(t)
        train_w, run_s = 2e6 + 6e6 * uniform(key + 1, n), 140.0 + 160.0 * uniform(key + 2, n)
        if place.world.operations:
            train_w = train_w * (uniform(key + 3, n) < traffic(t - since))
        p = 0.3e6 + train_w * (ramp(since, 15.0) - ramp(since - run_s, 10.0))
        p -= 0.25 * train_w * (ramp(since - run_s, 5.0) - ramp(since - run_s - 40.0, 8.0))
        return p * (1.0 + 0.006 * noise(t))

    return Load(power_w, 2.2e6, 8.6e6, 26_000.0, 0.93, 0.008)


def heating(place: Place) -> Load:
    """Points heating: control cabinet, and 9 kW in a duty cycle while the rail is near frost."""
    weather = place.world.plant(Weather, place.meter.site)
    cycle, noise = duty(place.key("heater"), 240.0, 0.5), white(place.key("power"))

    def power_w(t: float) -> float:
        frost = ramp(5.0 - weather.air_c(t), 2.0)
        return (180.0 + 9_000.0 * frost * cycle(t)) * (1.0 + 0.006 * noise(t))

    return Load(power_w, 200.0, 9.5e3, LOW_VOLTAGE, 0.98)


def cable(place: Place) -> Load:
    """A 110 kV export cable: 60-110 MW, evening peak."""
    share, noise = cable_share(place), white(place.key("power"))
    return Load(
        lambda t: 120e6 * share(t) * (1.0 + METER_NOISE * noise(t)), 90e6, 110e6, 110e3 / math.sqrt(3.0), 0.98, 0.003
    )


def cable_share(place: Place) -> Signal:
    """Return the load of the cable line as share of its rating, the same for meters and thermometers along it."""
    day, drift = daily(19.0), wander(place.world.key("cable", place.meter.line), 1800.0)
    if place.world.operations:  # less is used at weekends
        return lambda t: 0.72 + 0.12 * day(t) + 0.05 * drift(t) - 0.05 * weekend(t)
    return lambda t: 0.72 + 0.12 * day(t) + 0.05 * drift(t)


def hut(place: Place) -> Load:
    """A fibre hut: rectifiers around 1.5 kW, air conditioning in a duty cycle."""
    cycle, drift, noise = (
        duty(place.key("climate"), 900.0, 0.4, 5.0),
        wander(place.key("telecom"), 600.0),
        white(place.key("power")),
    )
    return Load(lambda t: (1_500.0 + 40.0 * drift(t) + 1_900.0 * cycle(t)) * (1.0 + 0.004 * noise(t)), 2_260.0, 3_600.0)


LOADS: Final[tuple[tuple[tuple[str, ...], Callable[[Place], Load]], ...]] = (
    (("crane", "hoist"), crane),
    (("shore",), shore),
    (("reefer",), reefers),
    (("light",), lights),
    (("aux", "station-service", "building"), building),
    (("heat",), heating),
    (("traction", "feeder", "substation", "incomer"), traction),
    (("pump", "mlp"), pump),
    (("cable", "landing", "export"), cable),
    (("hut", "fibre", "telecom"), hut),
)
