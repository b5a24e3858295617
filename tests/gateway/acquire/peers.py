"""How other gateways group their reads, re-implemented from their documents: registers only, one block per request."""

from drivers.blocks import Block
from gateway.acquire.space import limit_of, spot_of


def grouped(device, points, *, hole, same_type=False):
    """Return the reads of a greedy planner that crosses up to `hole` undefined addresses."""
    out, last = [], None
    places = sorted(points, key=lambda p: (spot_of(device, p).space, p.address, p.type))
    for point in places:
        spot = spot_of(device, point)
        space = (spot.space, point.type if same_type else "")
        limit = limit_of(spot.space, device.max_registers, device.max_bits)
        if last and last[0] == space and spot.start - last[2] <= min(hole, device.max_gap):
            end = max(last[2], spot.end)
            if end - last[1] <= limit:
                last[2] = end
                continue
        last = [space, spot.start, spot.end]
        out.append(last)
    return [Block(space[0][0], start, end - start, space[0][1]) for space, start, end in out]


def one_by_one(device, points):
    """Return one read per tag (ThingsBoard's default)."""
    spots = [spot_of(device, point) for point in points]
    return [spot.block(spot.end) for spot in spots]


STRATEGIES = {
    "one by one": one_by_one,
    "contiguous, same type": lambda d, p: grouped(d, p, hole=0, same_type=True),  # EdgeX
    "contiguous": lambda d, p: grouped(d, p, hole=0),  # Telegraf's default, Neuron
    "hole of 7": lambda d, p: grouped(d, p, hole=7),  # Victron on RTU
    "gap of 16": lambda d, p: grouped(d, p, hole=16),  # modbus-connection
    "max_insert 50": lambda d, p: grouped(d, p, hole=50),  # Telegraf, if asked for
}
