"""The machine's clock keeps its word."""

import asyncio

from gateway.model.clock import SystemClock

MS = 1_000_000


async def test_nobody_is_woken_before_the_moment_even_by_a_loop_that_fires_early():
    loop = asyncio.get_running_loop()
    loop._clock_resolution = 0.005  # what a loop takes for the same moment

    async def keep_awake():
        while True:
            await asyncio.sleep(0)

    awake = asyncio.create_task(keep_awake())
    clock = SystemClock()
    at_ns = clock.monotonic_ns() + 20 * MS
    await clock.sleep_until(at_ns)
    assert clock.monotonic_ns() >= at_ns
    awake.cancel()


async def test_a_moment_that_has_passed_lets_others_run_once():
    clock, ran = SystemClock(), []
    asyncio.get_running_loop().call_soon(ran.append, 1)
    await clock.sleep_until(clock.monotonic_ns() - 1)
    assert ran == [1]
