"""A clock whose time passes only when everybody waits for it."""

import asyncio
import heapq


class FakeClock:
    """Virtual time: sleeping tasks are woken in order, in no time at all."""

    def __init__(self, wall_ns=1_700_000_000_000_000_000):
        self.now_ns = 1_000_000_000
        self.offset_ns = wall_ns - self.now_ns
        self._sleepers = []
        self.state, self.offset_s, self.told = "synced", 0.0, []
        self._n = 0

    def monotonic_ns(self):
        return self.now_ns

    def wall_ns(self, monotonic_ns):
        return monotonic_ns + self.offset_ns

    def not_before(self, wall_ns):
        self.offset_ns = max(self.offset_ns, wall_ns - self.now_ns)

    def news(self):
        found, self.told = self.told, []
        return found

    async def sleep_until(self, monotonic_ns):
        if monotonic_ns <= self.now_ns:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        self._n += 1
        heapq.heappush(self._sleepers, (monotonic_ns, self._n, future))
        await future

    async def advance(self, seconds):
        """Let so much time pass; everything that falls due in it runs."""
        end = self.now_ns + round(seconds * 1e9)
        while True:
            for _ in range(20):
                await asyncio.sleep(0)
            if not self._sleepers or self._sleepers[0][0] > end:
                break
            when, _, future = heapq.heappop(self._sleepers)
            self.now_ns = max(self.now_ns, when)
            if not future.done():
                future.set_result(None)
        self.now_ns = end
