"""From gateway.toml to simulated meters: what `corridor sim` and the demo start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from drivers.sim.device import MeterSpec
from drivers.sim.faults import load
from drivers.sim.fleet import Fleet
from gateway.model.corridor import GatewaySpec


def meters(specs: Iterable[GatewaySpec]) -> list[MeterSpec]:
    """Return a simulated meter for every device of these gateways."""
    out = []
    for spec in specs:
        links = {link.name: link for link in spec.links}
        for device in spec.devices:
            expected = [point for each in device.expect for point in device.points if point.name == each.point]
            read = (*(tag.point for tag in device.tags), *device.strings)
            points = (*read, *(point for point in expected if point.name not in {each.name for each in read}))
            out.append(
                MeterSpec(
                    name=device.name,
                    link=links[device.link],
                    unit=device.unit,
                    profile=device.profile,
                    points=points,
                    enron=device.enron,
                    max_registers=device.max_registers,
                    asset=device.asset,
                    line=device.line,
                    kp_m=device.kp_m,
                    site=spec.site,
                    max_bits=device.max_bits,
                    max_gap=device.max_gap,
                    holes=device.holes,
                    expect=device.expect,
                    scan_list=device.scan_list,
                )
            )
    return out


async def simulate(
    specs: list[GatewaySpec],
    *,
    stop: asyncio.Event,
    say: Callable[[str], None],
    faults: Path | None,
    **settings: Any,
) -> None:
    """Serve every device until `stop` is set; settings as of Fleet.

    Raises FaultsError for a faults file that cannot be used, SimError for an endpoint that cannot be served.
    """
    script = load(faults) if faults else None
    simulated = meters(specs)
    async with Fleet(simulated, script=script, **settings):
        say(f"simulating {len(simulated)} meters; Ctrl-C ends it")
        await stop.wait()
