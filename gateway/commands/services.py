"""Commands that run until they are told to end: run, ingest, console, sim, demo."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import json
import os
import signal
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from drivers.toml import FileError
from gateway.commands.terminal import DONE, PEER_AWAY, WRONG_INPUT, refuse, say

M_TRIM_THRESHOLD: Final = -1  # malloc.h
M_ARENA_MAX: Final = -8
RELOAD_S: Final = 600.0  # for its answer: a new kind of point may have a kernel to be compiled on a small machine
TRIM_BYTES: Final = 128 * 1024  # glibc's default at the start, which it would raise by itself to 64 MB

Service = Callable[[asyncio.Event], Awaitable[None]]  # ends when the event is set


def run(options: argparse.Namespace) -> int:
    """Run the gateway."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can reload: what it is about to read is new anyway
    gc.disable()  # hardly anything made on the way up is garbage, and looking for it takes a sixth of the start
    _share_heap()
    try:
        return _run(options)
    finally:
        gc.enable()


def _run(options: argparse.Namespace) -> int:
    from gateway.model.config import ConfigError, load_gateway, state_dir

    try:
        spec = load_gateway(options.config)
    except ConfigError as error:
        return refuse(error.lines)
    from gateway.acquire.memory import Memory
    from gateway.acquire.plan import plan

    state = state_dir(options.state, spec.id)
    found = plan(spec, Memory(spec, state))
    if found.errors:
        return refuse(f"{options.config}: {line}" for line in found.errors)
    from gateway import app

    return _finish(app.main(found, state, say, options.config))


def reload(options: argparse.Namespace) -> int:
    """Have a running gateway read its configuration again, and report what became of it."""
    from gateway import control

    if options.config is None and options.state is None and "STATE_DIRECTORY" not in os.environ:
        options.misused("wants the gateway.toml that it runs with, or --state DIR")
    try:
        found = control.ask(_state_of(options), "reload", RELOAD_S)
    except FileError as error:
        return refuse(error.lines)
    except control.NobodyThere as error:
        say(str(error))
        return PEER_AWAY
    except OSError as error:
        return refuse([f"cannot ask the gateway: {error}"])
    if options.json:
        print(json.dumps(found))
        return DONE if found["ok"] else WRONG_INPUT
    for line in found["changes"] or ([] if found["errors"] else ["nothing changed"]):
        print(line)
    return refuse(found["errors"]) if found["errors"] else DONE


def _state_of(options: argparse.Namespace) -> Path:
    """Return the state folder of the gateway that is meant; raises FileError."""
    from gateway.model.config import gateway_id, state_dir

    return state_dir(options.state, "" if options.config is None else gateway_id(options.config))


def _share_heap() -> None:
    """Have all threads allocate from one heap, and hand back what is free at its end: a few MB less (mallopt(3))."""
    with contextlib.suppress(AttributeError):  # a C library without it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)


def ingest(options: argparse.Namespace) -> int:
    """Bring data from the broker into the database."""
    from gateway.model.config import ConfigError, load_ingest, state_dir

    try:
        spec = load_ingest(options.config)
    except ConfigError as error:
        return refuse(error.lines)
    from gateway.ingest import app

    async def serve(stop: asyncio.Event) -> None:
        await app.run(spec, state_dir(options.state, spec.id), stop=stop)

    return _serve(serve)


def console(options: argparse.Namespace) -> int:
    """Serve the operators' console."""
    from gateway.model.config import ConfigError, load_console

    try:
        spec = load_console(options.config)
    except ConfigError as error:
        return refuse(error.lines)
    from gateway.console import app
    from gateway.history.store import open_store

    async def serve(stop: asyncio.Event) -> None:
        store = open_store(spec.store) if spec.store else None
        await app.run(spec, store, stop=stop, ready=lambda url: say(f"console: {url}"))

    return _serve(serve)


def sim(options: argparse.Namespace) -> int:
    """Serve every device of a gateway.toml as a simulated meter."""
    if bool(options.cert) != bool(options.key):
        options.misused("--cert and --key go together")
    from gateway.model.config import ConfigError, load_gateway

    try:
        spec = load_gateway(options.config)
    except ConfigError as error:
        return refuse(error.lines)
    from drivers.sim.faults import FaultsError
    from drivers.sim.server import ServerTls, SimError
    from gateway.demo.fleet import simulate

    tls = ServerTls(options.cert, options.key) if options.cert and options.key else None

    async def serve(stop: asyncio.Event) -> None:
        await simulate(
            [spec],
            stop=stop,
            say=say,
            faults=options.faults,
            seed=options.seed,
            truth=options.truth,
            tls=tls,
            is_paced=options.paced,
            operations=options.operations,
        )

    try:
        return _finish(_until_signal(serve))
    except (FaultsError, SimError) as error:
        return refuse(error.lines)


def demo(options: argparse.Namespace) -> int:
    """Run the simulated corridor with everything around it."""
    from gateway.warm import KERNELS, compile_missing

    compile_missing(say, KERNELS)
    from gateway.demo import app

    try:
        return _finish(
            app.main(
                seconds=options.seconds,
                port=options.port,
                browser=not options.no_browser,
                data=options.data,
                seed=options.seed,
                as_json=options.json,
            )
        )
    except OSError as error:
        return refuse([f"the demo cannot go on: {error}"])


def _serve(serve: Service) -> int:
    """Run a process until it is told to end; what the machine refuses it at the start is a line, not a traceback."""
    try:
        return _finish(_until_signal(serve))
    except (OSError, sqlite3.OperationalError) as error:
        return refuse([f"cannot start: {error}"])


class _Abandoned(ThreadPoolExecutor):
    """Threads that nobody waits for at the end: a dial into a black hole or a locked file may take its time alone.

    What must be finished, a commit above all, its coroutine has awaited by then.
    """

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads be."""
        super().shutdown(wait=False, cancel_futures=True)


def _finish(main: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine to its end, as asyncio.run does, and return what it returns at once: see _Abandoned."""
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(_Abandoned())
        return runner.run(main)


async def _until_signal(serve: Service) -> int:
    """Run a process until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(stop)
    return DONE
