"""What goes wrong in the demo, when, and which event must come of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from drivers.sim.faults import Fault, FaultScript

FIRST_S: Final = 25.0  # the detectors have learnt by then
QUIET_S: Final = 8.0  # before the end, so that every event can arrive
ROUND_S: Final = 300.0  # of a long run: until then a detector has forgotten the last one
ROUND_SPAN_S: Final = 60.0  # a round has the timing of a run of a minute

# Kind of fault -> kind of the event that must follow, then the reasons that count. A kind that is not here is injected
# too, but no detector has to find it within a minute.
COVERED: Final[dict[str, tuple[str, ...]]] = {
    "limit": ("alarm", "low_low", "low", "high", "high_high"),
    "spike": ("anomaly", "spike", "rate"),
    "step": ("anomaly", "rate"),
    "freeze": ("anomaly", "frozen"),
    "silent": ("quality", "BadTimeout", "BadNoCommunication"),
    "nan": ("quality", "BadSensorFailure"),
    "exception": ("quality", "BadDeviceFailure"),
}

# One round, as in a run of 60 s. Every tag is judged by the detector that its kind needs, and hit only once.
ROUND: Final = (
    Fault("freeze", "stuck discharge transmitter", "pt-100", "discharge_pressure", 25.0, 26.5),
    Fault("limit", "block valve overpressure", "bv-15", "pressure_upstream", 27.0, 12.0, parameters={"value": 50.0}),
    Fault("limit", "gust over the crane limit", "wind-q1", "wind_gust_1min", 28.0, 11.0, parameters={"value": 15.0}),
    Fault("spike", "flow spike", "ft-101", "mass_flow", 31.0, 3.0, parameters={"size": 60.0}),
    Fault("drift", "creeping Coriolis", "ft-102", "mass_flow", 30.0, 20.0, parameters={"per_s": 0.02}),
    Fault("step", "gas pressure steps", "gm-500", "pressure", 34.0, 12.0, parameters={"size": 1.5}),
    Fault("limit", "hot joint", "rtu-1", "joint_temperature_2", 30.0, 12.0, parameters={"value": 75.0}),
    Fault("silent", "quality meter off line", "pq-1", "", 36.0, 6.0),
    Fault("step", "bearing bias", "mlp-2", "bearing_temp_de", 38.0, 12.0, parameters={"size": 9.0}),
    Fault("nan", "fibre probe lost", "joint-1", "temperature_ch3", 41.0, 5.0),
    Fault("spike", "rail thermometer spike", "node-k20", "rail_temperature", 43.0, 3.0, parameters={"size": 12.0}),
    Fault("exception", "meter failure", "aux-1", "", 45.0, 4.0, parameters={"code": 4.0}),
)


def script(seconds: float) -> FaultScript:
    """Return the demo's faults, spread over a run of `seconds`; 0 or infinity: repeated for ever.

    The first begins at 25 s at the earliest, all have ended 8 s before the end; a run too short for one goes without.
    """
    if seconds <= 0 or math.isinf(seconds):
        return FaultScript(tuple(replace(fault, every_s=ROUND_S) for fault in ROUND))
    if seconds < ROUND_S:
        return FaultScript(tuple(placed for fault in ROUND if (placed := _placed(fault, seconds))))
    n_rounds = int((seconds - ROUND_SPAN_S) // ROUND_S) + 1
    return FaultScript(
        tuple(
            replace(fault, name=f"{fault.name} {n + 1}", start_s=fault.start_s + n * ROUND_S)
            for n in range(n_rounds)
            for fault in ROUND
        )
    )


def _placed(fault: Fault, seconds: float) -> Fault | None:
    """Return a fault of the round moved into a run of another length."""
    room_s = seconds - QUIET_S - FIRST_S - fault.duration_s
    if room_s < 0:
        return None
    room_of_round_s = ROUND_SPAN_S - QUIET_S - FIRST_S - fault.duration_s
    return replace(fault, start_s=FIRST_S + (fault.start_s - FIRST_S) * room_s / room_of_round_s)
