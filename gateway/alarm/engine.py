"""All alarms of a gateway: rows whose flags changed come in, records of standing alarms go out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.alarm.state import State, Step, after
from gateway.detect import flags as bits
from gateway.model.frame import TagTable
from gateway.wire.events import AlarmRecord
from gateway.wire.topics import OWN

LIMIT_COLUMN: Final = {bits.LOW_LOW: 0, bits.LOW: 1, bits.HIGH: 2, bits.HIGH_HIGH: 3}
COMMUNICATION: Final = "communication"
DIAGNOSTIC: Final = 4  # the priority of what tells about meters, not about the process
HIGH: Final = 2
OWN_ALARMS: Final = {  # of the gateway itself: number and text
    "spool": (1, "frames wait in memory: the disk does not take them"),
    "refused": (2, "the broker refuses data, which wait in the spool"),
}
OWN_KEYS: Final = {-number: name for name, (number, _) in OWN_ALARMS.items()}
WORDS: Final = {
    bits.LOW_LOW: "far below normal",
    bits.LOW: "below normal",
    bits.HIGH: "above normal",
    bits.HIGH_HIGH: "far above normal",
}


@dataclass(slots=True)
class _Alarm:
    state: State
    since: int
    changed: int
    value: float | None
    by: str = ""


@dataclass(frozen=True, slots=True)
class Transition:
    """One alarm that moved: what the journal keeps and the event says; `row` is that of its tag, -1 for a device."""

    record: AlarmRecord
    step: Step
    row: int


class AlarmEngine:
    """The state of every alarm that is not normal: limits and communication; statistics only tell, as events.

    Alarms are kept by (row, flag bit) for a tag, by (-1 - device number, 0) for the communication with a device, and
    by (0, -number) for the gateway itself.
    """

    def __init__(self, table: TagTable) -> None:
        self._table = table
        self._alarms: dict[tuple[int, int], _Alarm] = {}
        self._names: dict[str, tuple[int, int]] = {}
        self.revision = 0

    def tag(self, row: int, bit: int, step: Step, time_ns: int, value: float) -> Transition | None:
        """Move the alarm of one tag; returns what moved, None if nothing did."""
        return self._move((row, bit), step, time_ns, None if math.isnan(value) else value)

    def device(self, number: int, step: Step, time_ns: int) -> Transition | None:
        """Move the communication alarm of a device."""
        return self._move((-1 - number, 0), step, time_ns, None)

    def own(self, name: str, step: Step, time_ns: int) -> Transition | None:
        """Move an alarm of the gateway itself, one of OWN_ALARMS."""
        return self._move((0, -OWN_ALARMS[name][0]), step, time_ns, None)

    def acknowledge(self, key: str, by: str, time_ns: int) -> Transition | str:
        """Acknowledge a standing alarm by its key device/tag/alarm; returns what moved, or why nothing did."""
        where = self._names.get(key)
        if where is None or where not in self._alarms:
            return f"no standing alarm '{key}'"
        alarm = self._alarms[where]
        if after(alarm.state, Step.ACK) is alarm.state:
            return f"'{key}' is {alarm.state} already"
        moved = self._move(where, Step.ACK, time_ns, alarm.value, by)
        assert moved is not None
        return moved

    def standing(self) -> list[AlarmRecord]:
        """Return every alarm that is not normal, in the order in which they were first raised."""
        return [self._record(key, alarm) for key, alarm in self._alarms.items()]

    def turn_to(self, table: TagTable) -> None:
        """Know another table; the alarms that stood have to be restored, as after a restart."""
        self._table = table
        self._alarms.clear()
        self._names.clear()
        self.revision += 1

    def restore(self, records: Iterable[AlarmRecord]) -> tuple[list[tuple[int, int]], list[AlarmRecord]]:
        """Take the standing alarms of the last run.

        Returns (row, flag bit) of those whose tag was beyond its limit, and those that the configuration no longer
        knows, which stand no more.
        """
        beyond, forgotten = [], []
        for record in records:
            key = self._key_of(record)
            if key is None or record.state not in set(State) - {State.NORMAL}:
                forgotten.append(record)
                self.revision += 1
                continue
            self._alarms[key] = _Alarm(State(record.state), record.since, record.changed, record.value, record.by)
            self._names[record.key] = key
            self.revision += 1
            if key[0] >= 0 and key[1] > 0 and record.state != State.RTN_UNACKED:
                beyond.append(key)
        return beyond, forgotten

    def _key_of(self, record: AlarmRecord) -> tuple[int, int] | None:
        """Return the key of an alarm that this configuration can raise."""
        table = self._table
        if record.device == OWN and record.alarm in OWN_ALARMS:
            return (0, -OWN_ALARMS[record.alarm][0])
        live = (i for i, device in enumerate(table.devices) if device.name == record.device and i not in table.gone)
        number = next(live, None)
        if record.alarm == COMMUNICATION:
            return None if number is None else (-1 - number, 0)
        for row in np.flatnonzero(table.device_of == number).tolist() if number is not None else ():
            if table.tags[row].name == record.tag:
                for bit, column in LIMIT_COLUMN.items():
                    if bits.NAMES[bit] == record.alarm and not math.isnan(table.limit[row, column]):
                        return (row, bit)
        return None

    def _move(
        self, key: tuple[int, int], step: Step, time_ns: int, value: float | None, by: str = ""
    ) -> Transition | None:
        known = self._alarms.get(key)
        before = known.state if known else State.NORMAL
        state = after(before, step)
        if state is before:
            return None
        alarm = known or _Alarm(state, time_ns, time_ns, value)
        alarm.state, alarm.changed, alarm.by = state, time_ns, by
        if step is Step.RAISE:
            alarm.since, alarm.value = time_ns, value
        record = self._record(key, alarm)
        if state is State.NORMAL:
            del self._alarms[key]
        else:
            self._alarms[key] = alarm
            self._names[record.key] = key
        self.revision += 1
        return Transition(record, step, key[0] if key[1] > 0 else -1)

    def _record(self, key: tuple[int, int], alarm: _Alarm) -> AlarmRecord:
        row, bit = key
        if bit <= 0:
            device = self._table.devices[-1 - row] if row < 0 else None
            name = OWN_KEYS[bit] if bit else COMMUNICATION
            return AlarmRecord(
                device=device.name if device else OWN,
                tag="",
                alarm=name,
                state=str(alarm.state),
                priority=DIAGNOSTIC if device else HIGH,
                since=alarm.since,
                changed=alarm.changed,
                value=None,
                limit=None,
                unit="",
                text="does not answer" if device else OWN_ALARMS[name][1],
                line=device.line if device else "",
                kp_m=device.kp_m if device else None,
                asset=device.asset if device else "",
                by=alarm.by,
            )
        tag = self._table.tags[row]
        device = self._table.devices[int(self._table.device_of[row])]
        column = LIMIT_COLUMN.get(bit)
        limit = float(self._table.limit[row, column]) if column is not None else None
        return AlarmRecord(
            device=device.name,
            tag=tag.name,
            alarm=bits.NAMES[bit],
            state=str(alarm.state),
            priority=tag.priority,
            since=alarm.since,
            changed=alarm.changed,
            value=alarm.value,
            limit=limit,
            unit=tag.point.unit,
            text=WORDS[bit],
            line=device.line,
            kp_m=device.kp_m,
            asset=device.asset,
            by=alarm.by,
        )
