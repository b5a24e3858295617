"""Which meter answers where: meters to endpoints, several units on one."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from drivers.link import LinkSpec
from drivers.sim.bus import PtyEndpoint
from drivers.sim.device import Meter, MeterSpec
from drivers.sim.physics import Quantity, quantities, texts
from drivers.sim.plants.place import World
from drivers.sim.server import Reply, ServerTls, SimError, SocketEndpoint

Where = tuple[str, ...]


@dataclass(slots=True)
class Device:
    """A meter at work.

    faults     the numbers of the script's faults that can reach it
    pins       values that a test has fixed;  last: what every tag showed last
    silent_ns  since when a test has it silent
    """

    spec: MeterSpec
    meter: Meter
    quantities: dict[str, Quantity]
    texts: dict[str, str]
    faults: list[int] = field(default_factory=list)
    pins: dict[str, float | None] = field(default_factory=dict)
    last: dict[str, float | None] = field(default_factory=dict)
    silent_ns: int | None = None
    seq: int = 0
    requests: int = 0
    exceptions: int = 0


@dataclass(slots=True)
class Line:
    """An endpoint and who answers on it. `down` says why it is closed: nobody listens while it is not empty."""

    name: str
    endpoint: SocketEndpoint | PtyEndpoint
    units: dict[int, Device] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    is_open: bool = False
    cut_ns: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


def wire(
    specs: Iterable[MeterSpec],
    world: World,
    respond: Callable[[dict[int, Device], int, bytes], Reply],
    tls: ServerTls | None,
    *,
    is_paced: bool,
) -> list[Line]:
    """Return one line per endpoint; raises SimError with everything that does not go together.

    respond  is given the units of the line on which a request came
    """
    lines: dict[Where, Line] = {}
    names: set[str] = set()
    where_of: dict[str, Where] = {}
    wrong = []
    for spec in specs:
        link, place, where = spec.link, f"device '{spec.name}'", _where(spec.link)
        if spec.name in names:
            wrong.append(f"{place}: name is given twice")
        names.add(spec.name)
        if where_of.setdefault(link.name, where) != where:
            wrong.append(f"{place}: link '{link.name}' is at {':'.join(where)} here, elsewhere at another endpoint")
        line = lines.get(where) or lines.setdefault(where, _line(link, respond, tls, is_paced=is_paced))
        if line.endpoint.link.transport != link.transport:
            wrong.append(
                f"{place}: link '{link.name}': {':'.join(where)} speaks {line.endpoint.link.transport} already"
            )
        if spec.unit in line.units:
            wrong.append(f"{place}: unit {spec.unit} belongs to device '{line.units[spec.unit].spec.name}' already")
            continue
        line.units[spec.unit] = Device(spec, Meter(spec), quantities(world, spec), texts(world, spec))
    if wrong:
        raise SimError(wrong)
    return list(lines.values())


def _where(link: LinkSpec) -> Where:
    """Return what tells endpoints apart; every port 0 is another one."""
    if link.transport == "rtu":
        return (link.path,)
    return (link.host, str(link.port)) if link.port else (link.host, "0", link.name)


def _line(
    link: LinkSpec,
    respond: Callable[[dict[int, Device], int, bytes], Reply],
    tls: ServerTls | None,
    *,
    is_paced: bool,
) -> Line:
    units: dict[int, Device] = {}
    answer = functools.partial(respond, units)
    if link.transport == "rtu":
        return Line(link.name, PtyEndpoint(link, answer, is_paced=is_paced), units)
    return Line(link.name, SocketEndpoint(link, answer, tls), units)
