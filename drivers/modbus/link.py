"""One Modbus endpoint over pymodbus: dialling, one request at a time, quarantine, counting."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from pymodbus.client.base import ModbusBaseClient
from pymodbus.exceptions import ConnectionException, ModbusException

from drivers.blocks import Block
from drivers.errors import DeviceException, DriverError, LinkDown, NoAnswer, WrongAnswer
from drivers.link import LinkCounters, LinkSpec, LinkState
from drivers.modbus.wire import LEAN, prove, request

log = logging.getLogger(__name__)
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # it logs every timeout as an error; our counters say it once

REDIAL_S: Final = 1.0  # never more than one dial a second per endpoint
RECEIVE_BYTES: Final = 2048  # asyncio's 256 KiB receive buffer costs 15 us per answer; 2 KiB holds seven answers
MAX_SILENT: Final = 1_000_000  # pymodbus closes after retries + 3 silent requests; when to redial is ours to say


def _heed_cancellation() -> None:
    """Raise CancelledError if this task was asked to end.

    asyncio.wait_for of Python 3.11, inside pymodbus, swallows a cancellation that comes in the same turn as the answer;
    without this a poller outlives its gateway.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class ModbusLink:
    """A Link over one pymodbus client, made anew for every connection.

    make  returns a fresh, unconnected client with this trace hook
    has_ids  whether the protocol numbers its requests (MBAP); without, a late answer can pass for the next one, so
             the line is left silent for a whole timeout after every doubt
    """

    def __init__(
        self,
        spec: LinkSpec,
        make: Callable[..., ModbusBaseClient],
        *,
        has_ids: bool,
    ) -> None:
        self.state: LinkState = "closed"
        self.counters = LinkCounters()
        self._spec = spec
        self._make = make
        self._has_ids = has_ids
        self._client: ModbusBaseClient | None = None
        self._next_dial = 0.0
        self._quiet_until = 0.0
        self._lock = asyncio.Lock()

    async def read(self, unit: int, block: Block) -> bytes:
        """Return exactly `block.n_bytes` payload bytes of `unit`; raises a DriverError leaf."""
        async with self._lock:
            client = await self._connected()
            await self._silence()
            self.counters.requests += 1
            try:
                asked = request(unit, block)
                answer = await client.execute(False, asked)
                _heed_cancellation()
                if self._has_ids and answer.transaction_id != asked.transaction_id:
                    raise WrongAnswer(f"asked as {asked.transaction_id}, answered as {answer.transaction_id}")
                payload = prove(answer, unit, block)
            except DeviceException as error:
                self.counters.exceptions[error.code] += 1
                raise
            except ConnectionException as error:
                self._drop()
                raise LinkDown(str(error)) from None
            except WrongAnswer:
                self.counters.foreign_frames += 1
                self._doubt()
                raise
            except (ModbusException, TimeoutError) as error:
                raise self._unanswered(error) from None
            except BaseException:
                self._doubt()  # cancelled with a request on the wire: its answer is still to come
                raise
            self.counters.answers += 1
            return payload

    async def close(self) -> None:
        """Give the endpoint back; a later read opens it again."""
        if self._client is not None:
            self._client.close()
            self._client = None
        self.state = "closed"

    def _unanswered(self, error: Exception) -> DriverError:
        if self._client is None or not self._client.connected:
            self._drop()
            return LinkDown(f"{self._spec.name}: connection lost")
        if "device id" in str(error) or "transaction id" in str(error):
            self.counters.foreign_frames += 1
            self._doubt()
            return WrongAnswer(f"{self._spec.name}: {error}")
        self.counters.timeouts += 1
        self._doubt()
        return NoAnswer(f"{self._spec.name}: no answer within {self._spec.timeout_s:g} s")

    def _doubt(self) -> None:
        """After an answer that may still come: without transaction ids, no request before it must have died away."""
        if not self._has_ids:
            self._quiet_until = asyncio.get_running_loop().time() + self._spec.timeout_s

    async def _silence(self) -> None:
        wait_s = self._quiet_until - asyncio.get_running_loop().time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    async def _connected(self) -> ModbusBaseClient:
        if self._client is not None:
            if self._client.connected:
                return self._client
            self._drop()
        now = asyncio.get_running_loop().time()
        if now < self._next_dial:
            raise LinkDown(f"{self._spec.name}: not connected")
        self._next_dial = now + REDIAL_S
        self.counters.dials += 1
        try:
            client = self._make(trace_connect=self._connection)  # loads certificates
        except OSError as error:
            self._turn("down", str(error))
            raise LinkDown(f"{self._spec.name}: {error}") from None
        client.set_max_no_responses(MAX_SILENT)
        for lean in LEAN:
            client.register(lean)
        try:
            connected = await client.connect()
            _heed_cancellation()
        except (OSError, UnicodeError, ModbusException) as error:  # UnicodeError: a host name that IDNA refuses
            client.close()
            self._turn("down", str(error))
            raise LinkDown(f"{self._spec.name}: {error}") from None
        if not connected:
            client.close()
            self._turn("down", "cannot be reached")
            raise LinkDown(f"{self._spec.name}: cannot be reached")
        transport: Any = client.ctx.transport
        if hasattr(transport, "max_size"):
            transport.max_size = RECEIVE_BYTES
        self._client = client
        self._turn("up", "connected")
        return client

    def _turn(self, state: LinkState, why: str) -> None:
        """Change the state, and say so once."""
        if state != self.state:
            where = f"{self._spec.host}:{self._spec.port}" if self._spec.host else self._spec.path
            level = logging.INFO if state == "up" else logging.WARNING
            log.log(level, "link '%s' %s: %s: %s", self._spec.name, state, where, why)
        self.state = state

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        self._turn("down", "connection lost")

    def _connection(self, is_up: bool) -> None:
        """Fail the read in flight at once when its connection goes: pymodbus would let it wait for its timeout."""
        client = self._client
        if not is_up and client is not None:
            pending = client.ctx.response_future
            if not pending.done():
                pending.set_exception(ConnectionException("connection lost"))
