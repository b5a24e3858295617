"""The one MQTT client: PUBACK reason codes, fail-fast, manual acknowledgement, reconnecting for ever.

aiomqtt hides a refused publish and lets one in flight wait out its timeout when the broker dies; the subclass here
mends both. `send`, the way of the data, makes its PUBLISH and reads its PUBACK itself and goes straight to the socket:
through both libraries one small message costs a fifth of all that a poll costs more, and neither of them keeps to the
number of messages that the broker takes at a time. Nor is the keepalive paho's: it notices a frozen broker after two
of them, and takes a thin link for one; every connection has a `Watchdog` instead. It reaches into private names of
aiomqtt 2.5 (`_client`, `_pending_publishes`, `_pending_call`, `_wait_for`, `_on_publish`, `_on_connect`, `_connected`,
`_disconnected`, `_misc_loop`, `_misc_task`, `_on_socket_register_write`) and of paho-mqtt 2 (`_sockpairR`,
`_sockpairW`, `_mid_generate`, `_sock_send`, `_sock_close`, `_packet_queue`, `_send_simple_command`,
`_handle_pubackcomp`, `_in_packet`, `_out_messages`, `_inflight_messages`, `_max_inflight_messages`,
`_update_inflight`, `_last_bytes_received`, `_keepalive`, `_WebsocketWrapper._socket`), which
tests/gateway/wire/test_client.py pins.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

import aiomqtt
from aiomqtt import Message, MqttError
from paho.mqtt import client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from gateway.model.corridor import MqttSpec
from gateway.wire.watchdog import Traffic, Watchdog, traffic_of

log = logging.getLogger(__name__)

KEEPALIVE_S: Final = 10  # a frozen broker is noticed within one and a half of these
ACK_TIMEOUT_S: Final = 20.0  # alive, but without this PUBACK; behind a thin link's own buffer it takes a while
UNANSWERED_S: Final = 60.0  # it answers pings and acknowledges nothing of what was sent
CONNECT_TIMEOUT_S: Final = 5.0  # for TCP with TLS, then for CONNACK: satellite round trips, and reserve
DISCONNECT_S: Final = 0.2  # for the last packet to find room in the socket: SIGTERM must end within 2 s
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_CAP_S: Final = 0.75  # a broker that is back has data within 1 s: this, a dial, CONNACK and the first frame
STABLE_S: Final = 5.0  # a session that lived this long starts the back-off anew
REFUSED: Final = 0x80  # MQTT 5: reason codes from here on are failures
NOT_YET_VALID: Final = "certificate is not yet valid"  # OpenSSL's words: never skipped, and often a clock at 1970
ONLY_3_1_1: Final = "%s speaks MQTT 3.1.1 only: no reason codes, no shared subscriptions"
PACKET_TOO_LARGE: Final = 0x95
MAX_PACKET_BYTES: Final = 268_435_455  # what the length field of MQTT holds, where the broker names no limit
PUBLISH_OVERHEAD_BYTES: Final = 10  # fixed header 5, topic length 2, packet id 2, no properties 1
PINGREQ: Final = 0xC0
PUBLISH_QOS_1: Final = 0x32  # first byte of the packet: not a duplicate, not retained
UNSPECIFIED: Final = 0x80  # as a reason to disconnect: also what paho makes of a connection that just ends
BROKEN: Final = "failed to receive on socket: "  # paho's words for a connection that is reset, behind them by what
SUCCESS: Final = 0  # of a PUBACK; where it says nothing it means this
UNSUPPORTED_VERSION: Final = (1, 132)  # CONNACK of 3.1.1 and of 5
IN_FLIGHT: Final = 64  # QoS 1 messages on their way to the broker, if it takes as many
RECEIVE_MAXIMUM: Final = 65_535  # MQTT 5, 3.2.2.3.3: where the broker names no number
PORTS: Final = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}

__all__ = ["Client", "Message", "MqttError", "Rejected", "Will", "keep_connected"]

Acked = Callable[[int], None]


class Rejected(MqttError):
    """The broker refused one publish; `code` is its PUBACK reason code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"refused by the broker: {text} (0x{code:02x})")
        self.code = code


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says in our name when we vanish; retained, QoS 1."""

    topic: str
    payload: bytes


class _LibraryLog(logging.Logger):
    """What the libraries say of one connection; that it broke `_tell` says, once, with the reason noted here."""

    def __init__(self) -> None:
        super().__init__("mqtt")
        self.parent = log
        self.broken = ""

    def handle(self, record: logging.LogRecord) -> None:
        """Pass on what is not the end of a connection: behind a proxy, each dial of a broker that is away has one."""
        if isinstance(record.msg, str) and record.msg.startswith(BROKEN):
            self.broken = record.getMessage().removeprefix(BROKEN)
        else:
            super().handle(record)


class Client(aiomqtt.Client):
    """One connection. Make a new one for each: re-entering would make paho send old publishes again."""

    def __init__(self, hostname: str, port: int, *, manual_ack: bool, **options: Any) -> None:
        self._library = _LibraryLog()
        super().__init__(hostname, port, logger=self._library, **options)
        self.is_v5 = options["protocol"] is aiomqtt.ProtocolVersion.V5
        self.lost_why = ""  # once the connection is gone, and not by our wish
        self._refused: dict[int, ReasonCode] = {}
        self._sent: dict[int, Acked] = {}
        self._answered_s = 0.0  # when one of them was acknowledged last, or the first one sent
        self._busy_s = 0.0  # when the link was last seen at work on something, theirs or ours, that takes its time
        self._queued: deque[tuple[str, bytes, Acked]] = deque()  # beyond what the broker takes at a time
        self._window = IN_FLIGHT
        self._paho_puback = self._client._handle_pubackcomp
        self._client._handle_pubackcomp = self._on_puback  # type: ignore[assignment]
        self._paho_number = self._client._mid_generate
        self._client._mid_generate = self._free_number  # type: ignore[method-assign]
        self._paho_send = self._client._sock_send
        self._client._sock_send = self._send_some  # type: ignore[assignment]
        self.is_opened = False
        self._max_packet_bytes = MAX_PACKET_BYTES
        self._hung_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pending_calls_threshold = IN_FLIGHT  # its warning is one log line per publish beyond this
        self._client.connect_timeout = CONNECT_TIMEOUT_S
        if manual_ack:
            self._client.manual_ack_set(True)

    async def __aenter__(self) -> Self:
        """Connect; what was opened on the way is closed when that fails or is given up."""
        try:
            await super().__aenter__()
            if self._client.socket() is None:  # aiomqtt forgets what came together with the CONNACK
                raise MqttError(self.lost_why or "the broker hung up")
            self._drop_wakers()
            return self
        except BaseException:
            self._client.on_socket_close = None  # its loop may be gone by the time paho lets the socket go
            self._client.on_socket_unregister_write = None
            self._loop.call_soon(self._close)  # behind what paho's thread has left for the loop to do
            raise

    async def __aexit__(self, *error: Any) -> None:
        """Disconnect; a broker that takes nothing more is hung up on, or who is to end would wait for it."""
        try:
            with contextlib.suppress(MqttError):
                await super().__aexit__(*error)
        finally:
            self._client._sock_close()

    def _close(self) -> None:
        if sock := self._client.socket():
            self._loop.remove_reader(sock.fileno())
            self._loop.remove_writer(sock.fileno())
            sock.close()
        if self._misc_task is not None:
            self._misc_task.cancel()

    def room(self, topic: str) -> int:
        """Return how many bytes of payload one publish to this topic may have: a broker hangs up on larger packets."""
        return self._max_packet_bytes - len(topic.encode()) - PUBLISH_OVERHEAD_BYTES

    async def publish(self, /, topic: str, payload: Any = None, *args: Any, **kwargs: Any) -> None:
        """Publish and wait for the PUBACK; raises Rejected, also for what is larger than the broker takes."""
        if payload is not None and len(payload) > self.room(topic):
            raise Rejected(PACKET_TOO_LARGE, f"{len(payload)} bytes, at most {self.room(topic)} fit")
        await super().publish(topic, payload, *args, **kwargs)

    def send(self, topic: str, payload: bytes, acked: Acked) -> None:
        """Publish with QoS 1 without waiting; `acked(reason_code)` is called once, or never if the session ends first.

        Raises MqttError when the connection is gone.
        """
        if len(payload) > self.room(topic):
            self._loop.call_soon(acked, PACKET_TOO_LARGE)
            return
        if self._client.socket() is None:
            raise MqttError("could not publish: there is no connection")
        self._queued.append((topic, payload, acked))
        self._send_queued()

    def _send_queued(self) -> None:
        """Send what the broker takes beside what is in flight; paho counts both, for its own publishes too."""
        while self._queued and self._client._inflight_messages < self._window:
            self._client._inflight_messages += 1
            self._send(*self._queued.popleft())

    def _send(self, topic: str, payload: bytes, acked: Acked) -> None:
        number = self._client._mid_generate()
        packet = _publish_packet(topic.encode(), number, payload, self.is_v5)
        if not self._sent:
            self._answered_s = self._loop.time()
        self._sent[number] = acked
        n = self._write(packet) if not self._client.want_write() else 0
        if n < len(packet):
            self._client._packet_queue(PUBLISH_QOS_1, packet[n:], number, 1)

    def _free_number(self) -> int:
        """Return the next number that no message in flight has: neither one of `send` nor one of paho's own."""
        number = self._paho_number()
        while number in self._sent or number in self._client._out_messages:
            number = self._paho_number()
        return number

    def _on_puback(self, command: Literal["PUBACK", "PUBCOMP"]) -> int:
        """Take the PUBACK that paho has read, if it is of what was sent here."""
        packet = self._client._in_packet["packet"]
        acked = self._sent.pop(int.from_bytes(packet[:2], "big"), None)
        if acked is None:
            code = self._paho_puback(command)
        else:
            self._answered_s = self._loop.time()
            try:
                acked(packet[2] if len(packet) > 2 else SUCCESS)
            except BaseException as error:
                self._loop.call_soon(_raise, error)  # aiomqtt takes it for a lost connection, and the loop for a bug
                raise
            self._client._inflight_messages -= 1
            code = self._client._update_inflight()
        self._send_queued()
        return code

    def _send_some(self, packet: bytes | bytearray) -> int:
        """Write in paho's way; raises BlockingIOError where its WebSocket says 0 of a frame that has only begun.

        Of a packet that went out with 0 bytes paho would write nothing more, and end its frame with the next packet.
        """
        n = self._paho_send(packet)
        if not n:
            raise BlockingIOError
        return n

    def _write(self, packet: bytes) -> int:
        """Write what the socket has room for; returns how many bytes. Whatever else is wrong with it paho meets too."""
        with contextlib.suppress(OSError):
            return self._client._sock_send(packet)
        return 0

    def _on_socket_register_write(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        """Wait for room in the socket, at once: one turn later its number may be that of another."""
        if self.is_opened:
            self._loop.add_writer(sock.fileno(), client.loop_write)
        else:
            super()._on_socket_register_write(client, userdata, sock)  # paho connects in a thread

    def _drop_wakers(self) -> None:
        """Close the pair of sockets by which paho wakes a thread of its own: there is none, and nobody reads it."""
        for end in (self._client._sockpairR, self._client._sockpairW):
            if end is not None:
                end.close()
        self._client._sockpairR = self._client._sockpairW = None

    async def subscribe_as_published(self, topic: str) -> None:
        """Subscribe with QoS 1 so that retained messages say so also when they come live (MQTT 5; 3.1.1 cannot)."""
        if self.is_v5:
            await self.subscribe(topic, options=SubscribeOptions(qos=1, retainAsPublished=True))
        else:
            await self.subscribe(topic, qos=1)

    def ack(self, message: Message) -> None:
        """Acknowledge a received message now; for clients connected with manual_ack."""
        self._client.ack(message.mid, message.qos)

    async def _misc_loop(self) -> None:
        """Watch the connection for as long as its socket is open; aiomqtt has paho do that."""
        await asyncio.wait({self._connected})
        watchdog: Watchdog | None = None
        while (way := self._client.socket()) is not None:
            now_s, traffic = self._loop.time(), _traffic(way)
            watchdog = watchdog or Watchdog(self._keepalive, now_s, traffic)
            is_reading = self._client._in_packet["command"] != 0
            watchdog.look(now_s, self._client._last_bytes_received, traffic, is_reading=is_reading)
            self._busy_s = watchdog.busy_s
            if watchdog.is_silent:
                self._give_up(f"the broker answers nothing for {watchdog.silent_s:.0f} s")
            elif self._sent and now_s - max(self._answered_s, self._busy_s) > UNANSWERED_S:
                self._give_up(f"no message was acknowledged for {UNANSWERED_S:g} s")
            elif watchdog.asks(self._client._keepalive or math.inf):  # the broker may have named another, or none
                self._client._send_simple_command(PINGREQ)
            await asyncio.sleep(watchdog.look_s)

    def _give_up(self, why: str) -> None:
        """End the connection as if it were lost: everything that waits for it fails at once."""
        self.lost_why = why
        if not self._disconnected.done():
            self._disconnected.set_exception(MqttError(why))
            self._disconnected.exception()  # a session that ends otherwise waits for it no more, and asyncio complains
        self._client._sock_close()

    async def lost(self) -> None:
        """Wait until the connection is gone, then raise MqttError."""
        await asyncio.wait({self._disconnected})
        raise MqttError("connection lost") from self._disconnected.exception()

    def _on_connect(
        self, client: paho.Client, userdata: Any, flags: Any, reason_code: ReasonCode, properties: Any = None
    ) -> None:
        self._max_packet_bytes = getattr(properties, "MaximumPacketSize", MAX_PACKET_BYTES)
        receive_maximum = getattr(properties, "ReceiveMaximum", RECEIVE_MAXIMUM)
        self._window = self._client._max_inflight_messages = max(1, min(IN_FLIGHT, receive_maximum))
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self, client: paho.Client, userdata: Any, flags: Any, reason_code: ReasonCode, properties: Any = None
    ) -> None:
        if not self.lost_why and reason_code.is_failure:
            said = "the broker hung up" if reason_code.value == UNSPECIFIED else f"the broker hung up: {reason_code}"
            self.lost_why = self._library.broken or said
        if not self._hung_up.done():
            self._hung_up.set_result(None)  # also before CONNACK, where aiomqtt would wait out its timeout
        super()._on_disconnect(client, userdata, flags, reason_code, properties)
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()  # before CONNACK nobody waits for it, and asyncio complains

    def _on_publish(
        self, client: paho.Client, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        if reason_code.value >= REFUSED and mid in self._pending_publishes:
            self._refused[mid] = reason_code
        super()._on_publish(client, userdata, mid, reason_code, properties)

    def _pending_call(self, mid: int, value: Any, pending_dict: dict[int, Any]) -> Any:
        call = super()._pending_call(mid, value, pending_dict)
        return self._checked(mid, call) if pending_dict is self._pending_publishes else call

    @contextlib.contextmanager
    def _checked(self, mid: int, call: Any) -> Iterator[None]:
        with call:
            yield
        if refused := self._refused.pop(mid, None):
            raise Rejected(refused.value, str(refused))

    async def _wait_for(self, fut: Any, timeout: float | None) -> Any:
        if fut is self._disconnected:
            return await super()._wait_for(fut, DISCONNECT_S)
        if fut is self._connected:
            self.is_opened, timeout = True, CONNECT_TIMEOUT_S
        answer = asyncio.ensure_future(super()._wait_for(fut, math.inf))
        try:
            await self._wait_while_busy({answer, self._disconnected, self._hung_up}, timeout or self.timeout)
            if answer.done() or (fut is self._connected and fut.done() and fut.exception()):
                return await answer  # a broker that refuses hangs up as well, and has said why
            raise MqttError(self.lost_why or "connection lost while waiting")
        finally:
            answer.cancel()

    async def _wait_while_busy(self, ends: set[asyncio.Future[Any]], timeout_s: float) -> None:
        """Wait for the first of them; raises MqttError after so long, not counting what a thin link takes."""
        began_s = self._loop.time()
        while left_s := max(0.0, max(began_s, self._busy_s) + timeout_s - self._loop.time()):
            done, _ = await asyncio.wait(ends, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return
        raise MqttError(f"no answer for {timeout_s:g} s")


def _traffic(way: Any) -> Traffic:
    """Return what the kernel knows of paho's socket, or of that below the wrapper that it makes for a WebSocket.

    There a front may send pings of its own for a broker that is frozen.
    """
    return traffic_of(getattr(way, "_socket", way), is_broker=not hasattr(way, "_socket"))


def _raise(error: BaseException) -> None:
    raise error


def _publish_packet(topic: bytes, number: int, payload: bytes, is_v5: bool) -> bytes:
    """Return a PUBLISH of QoS 1, as in MQTT 5 and 3.1.1, section 3.3; of 5 without properties."""
    head = len(topic).to_bytes(2, "big") + topic + number.to_bytes(2, "big") + (b"\0" if is_v5 else b"")
    first, rest = bytearray((PUBLISH_QOS_1,)), len(head) + len(payload)
    while rest > 0x7F:
        first.append(rest & 0x7F | 0x80)
        rest >>= 7
    first.append(rest)
    return bytes(first) + head + payload


def _client(url: str, spec: MqttSpec, identifier: str, v5: bool, options: dict[str, Any]) -> Client:
    parts = urlsplit(url)
    secure = parts.scheme in ("mqtts", "wss")
    common: dict[str, Any] = {
        "identifier": identifier,
        "username": spec.username,
        "password": spec.password,
        "protocol": aiomqtt.ProtocolVersion.V5 if v5 else aiomqtt.ProtocolVersion.V311,
        "transport": "websockets" if parts.scheme in ("ws", "wss") else "tcp",
        "websocket_path": (parts.path or "/mqtt") if parts.scheme in ("ws", "wss") else None,
        "timeout": ACK_TIMEOUT_S,
        "keepalive": options["keepalive_s"],
        "max_inflight_messages": IN_FLIGHT,
        "socket_options": ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),),  # else Nagle holds a small publish for 40 ms
        "tls_context": _tls(spec) if secure else None,
        "manual_ack": options["manual_ack"],
    }
    if will := options["will"]:
        common["will"] = aiomqtt.Will(will.topic, will.payload, qos=1, retain=True)
    if v5:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        if options["session_expiry_s"]:
            properties.SessionExpiryInterval = options["session_expiry_s"]
        if options["receive_maximum"]:
            properties.ReceiveMaximum = options["receive_maximum"]
        common |= {"properties": properties, "clean_start": options["clean_start"]}
    else:
        common["clean_session"] = options["clean_start"]
    return Client(parts.hostname or "", parts.port or PORTS[parts.scheme], **common)


def _tls(spec: MqttSpec) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(spec.ca_file) if spec.ca_file else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if spec.cert_file:
        context.load_cert_chain(spec.cert_file, spec.key_file)
    return context


async def keep_connected(
    spec: MqttSpec,
    identifier: str,
    session: Callable[[Client], Awaitable[None]],
    *,
    on_state: Callable[[bool, str], None] | None = None,
    will: Callable[[], Will] | Will | None = None,
    clean_start: bool = True,
    session_expiry_s: int = 0,
    manual_ack: bool = False,
    receive_maximum: int | None = None,
    keepalive_s: int = KEEPALIVE_S,
) -> None:
    """Connect, run `session` on the connection, and begin again whenever it is lost, until cancelled.

    MQTT 5, or 3.1.1 with a broker that cannot (said once). The URLs are tried in turn; the wait after a round of
    them is capped and jittered. `on_state(up, what)` hears of every change. A broker that answers nothing for 1.5
    keepalives is left. A session that returns ends the whole; what it raises other than MqttError propagates.
    """
    loop = asyncio.get_running_loop()
    delay_s, attempt, known, v5 = BACKOFF_FIRST_S, 0, "", dict.fromkeys(spec.urls, True)
    proven: set[str] = set()  # brokers whose version is known: their silence has another reason
    trial: set[str] = (
        set()
    )  # brokers that answered 3.1.1 after silence: asked once more for 5, then taken at their word
    while True:
        url = spec.urls[attempt % len(spec.urls)]
        options: dict[str, Any] = {
            "will": will() if callable(will) else will,
            "clean_start": clean_start,
            "session_expiry_s": session_expiry_s,
            "manual_ack": manual_ack,
            "receive_maximum": receive_maximum,
            "keepalive_s": keepalive_s,
        }
        began, client = None, None
        try:
            client = _client(url, spec, identifier, v5[url], options)
            async with client:
                if not v5[url] and url not in proven and url not in trial:
                    trial.add(url)
                    v5[url] = True
                    continue
                began = loop.time()
                if not v5[url] and url not in proven:
                    log.warning(ONLY_3_1_1, url)
                proven.add(url)
                known = _tell(on_state, True, f"connected to {url}", known)
                await session(client)
                return
        except aiomqtt.MqttCodeError as error:
            code = error.rc.value if isinstance(error.rc, ReasonCode) else error.rc
            if v5[url] and code in UNSUPPORTED_VERSION:
                log.warning(ONLY_3_1_1, url)
                v5[url] = False
                proven.add(url)
                continue
            known = _tell(on_state, False, f"{url}: {error}", known)
        except (MqttError, OSError, ValueError) as error:
            if began is not None and not isinstance(error, MqttError | OSError):
                raise  # the session's own; a URL, a name or a file that nothing can be made of fails before it
            why = (client.lost_why if client else "") or str(error)
            if NOT_YET_VALID in why:
                why += f"; this machine's clock says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: is it set?"
            known = _tell(on_state, False, f"{url}: {why}", known)
        if url not in proven and client is not None and client.is_opened:
            v5[url] = not v5[url]  # no CONNACK: some brokers of 3.1.1 meet an unknown version so
        if began is not None and loop.time() - began > STABLE_S:
            delay_s = BACKOFF_FIRST_S
        attempt += 1
        if attempt % len(spec.urls) == 0:
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))
            delay_s = min(2 * delay_s, BACKOFF_CAP_S)


def _tell(on_state: Callable[[bool, str], None] | None, up: bool, what: str, known: str) -> str:
    """Log a change of state once, pass it on, and return it."""
    now = f"{up}{what if up else ''}"
    if now != known:
        log.log(logging.INFO if up else logging.WARNING, "broker %s", what if up else f"away: {what}")
        if on_state:
            on_state(up, what)
    return now
