"""A float32 total between its steps, the slow way: one meter, plain Python numbers; shares no code with gateway."""

import struct


def neighbours(x):
    """Return the float32s next to a positive float32."""
    (bits,) = struct.unpack("<I", struct.pack("<f", x))
    return [struct.unpack("<f", struct.pack("<I", bits + way))[0] for way in (-1, 1)]


class Total:
    """Told every sample in its order, None for a bad one; gain is in register units per second and unit of rate."""

    def __init__(self, gain, stale_ns):
        self.gain, self.stale_ns = gain, stale_ns
        self.last = None  # (time_ns, speed) of the last good sample of the rate
        self.is_paused = False
        self.register, self.counted, self.counted_then = None, 0.0, None
        self.guess, self.floor, self.is_told = None, None, False

    def rate(self, time_ns, rate):
        self.is_paused = rate is None
        if rate is None:
            return
        speed = max(0.0, rate * self.gain)
        if self.held(time_ns) is None:
            self.guess = self.counted_then = None
        else:
            seconds = (time_ns - self.last[0]) * 1e-9
            self.counted += (self.last[1] + speed) * 0.5 * seconds
        self.last = time_ns, speed

    def held(self, time_ns):
        """Return what came since the last sample of the rate, None if that is too old."""
        if self.last is None or time_ns - self.last[0] > self.stale_ns:
            return None
        return self.last[1] * ((time_ns - self.last[0]) * 1e-9)

    def total(self, time_ns, x):
        """Return (what is published, whether it is uncertain, whether a stall is told now) of a register's number."""
        held = self.held(time_ns)
        counted = None if held is None or self.is_paused else self.counted + held
        below, above = neighbours(x)
        low, high = (below + x) / 2, (x + above) / 2
        if self.register is None or x < self.register:
            self.guess = self.floor = None
        if x != self.register:
            rose = None if None in (counted, self.counted_then) else counted - self.counted_then
            if self.floor is not None:
                if rose is None:
                    self.guess = None
                else:
                    self.guess = low + rose / 2 if self.guess is None else self.guess + rose
            self.register, self.is_told = x, False
            self.counted = 0.0 if held is None else -held
            self.counted_then = counted = None if counted is None else self.counted + held
        elif counted is not None:
            if None not in (self.guess, self.counted_then):
                self.guess += counted - self.counted_then
            self.counted_then = counted
        if self.guess is not None:
            self.guess = max(low, min(high, self.guess))
        out = x
        if x >= 16_777_216 and None not in (self.guess, counted):
            step = above - x
            out = round(self.guess * 64 / step) * step / 64
        self.floor = out = out if self.floor is None or x < 16_777_216 else max(out, self.floor)
        stalls = x >= 16_777_216 and counted is not None and counted > 2 * (above - x) and not self.is_told
        self.is_told = self.is_told or stalls
        return out, x >= 16_777_216, stalls
