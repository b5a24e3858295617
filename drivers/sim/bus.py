"""An RS-485 bus on a pseudo terminal."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import socket
import stat
import termios
import tty
from pathlib import Path
from typing import Final, Literal

from drivers.link import LinkSpec
from drivers.sim.frames import RtuRequests, line_time_s
from drivers.sim.hostile import Door
from drivers.sim.play import Stage
from drivers.sim.server import READ_BYTES, Reply, Respond, SimError, next_requests, rtu_frame

PTY_SILENCE_S: Final = 0.02  # more than the pauses of a busy machine between two writes of one frame


class PtyEndpoint:
    """An RS-485 bus on a pseudo terminal, linked at the path where the gateway looks for its serial device.

    is_paced  answers come when they would on a real line: turnaround and characters take their time
    """

    def __init__(self, link: LinkSpec, respond: Respond, *, is_paced: bool = False) -> None:
        self.link = link
        self.path = Path(link.path)
        self._respond = respond
        self._is_paced = is_paced
        self._ends: tuple[int, int] | None = None  # ours, and the one that clients open: held, so that none hangs up
        self._target = ""
        self._claim: socket.socket | None = None
        self._inbox = bytearray()
        self._arrived = asyncio.Event()

    async def open(self) -> None:
        """Make the pseudo terminal and its link; raises SimError and leaves alone what is not ours."""
        if wrong := _occupied(self.path):
            raise SimError([f"link '{self.link.name}': {wrong}"])
        try:
            self._claim = _claim(self.path)
            self._plug()
        except OSError as error:
            await self.close()
            what = f"cannot link {self.path}: {error.strerror}"
            if error.errno == errno.EADDRINUSE:
                what = f"{self.path} is served by another simulation, wanted a free path"
            raise SimError([f"link '{self.link.name}': {what}"]) from None

    async def close(self) -> None:
        """Hang up, and remove the link if it is still ours."""
        self._unplug()
        if self._claim:
            self._claim.close()
            self._claim = None

    def _plug(self) -> None:
        self._ends = ours, theirs = os.openpty()
        tty.setraw(theirs)
        os.set_blocking(ours, False)
        target = os.ttyname(theirs)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(target)
        self._target = target
        asyncio.get_running_loop().add_reader(ours, self._on_bytes)

    def _unplug(self) -> None:
        if self._ends:
            asyncio.get_running_loop().remove_reader(self._ends[0])
            if self._target and self.path.is_symlink() and str(self.path.readlink()) == self._target:
                self.path.unlink(missing_ok=True)
            for end in self._ends:
                os.close(end)
        self._ends, self._target = None, ""
        self._inbox.clear()

    def drop(self) -> None:
        """Throw away what is on the line."""
        if self._ends:
            termios.tcflush(self._ends[1], termios.TCIOFLUSH)
        self._inbox.clear()

    async def run(self) -> None:
        """Answer requests until cancelled."""
        framer = RtuRequests()
        async with asyncio.TaskGroup() as tasks:
            stage = Stage(self.link.transport, self, tasks)
            while True:
                for unit, request in await next_requests(framer, self._read, PTY_SILENCE_S) or ():
                    reply = self._respond(unit, request)
                    if unit == 0 or not reply.is_known or reply.cut:
                        continue  # a broadcast, an absent unit and a silent one look alike on a bus
                    await self._reply(stage, unit, request, reply)

    async def _reply(self, stage: Stage, unit: int, request: bytes, reply: Reply) -> None:
        """Let what waited for a request happen, then answer it, or let that go wrong."""
        stage.request()
        if reply.pdu is None:
            return
        frame = rtu_frame(unit, reply)
        line = self.link.serial
        pace_s = self.link.turnaround_s + line_time_s(line, len(request) + 3, len(frame)) if self._is_paced else 0.0
        await self.rest(reply.delay_s + pace_s)
        stage.exchange(0, unit, request, reply.pdu, reply.wrong)
        if reply.wrong is None:
            self.send(frame)

    async def rest(self, seconds: float) -> None:
        """Wait."""
        if seconds > 0:
            await asyncio.sleep(seconds)

    def end(self, how: Literal["close", "reset"]) -> None:
        """Let the adapter be unplugged and plugged in again; when there is no terminal left, it stays unplugged."""
        self._unplug()
        try:
            self._plug()
        except OSError:
            self._unplug()

    def receive_next(self, door: Door) -> None:
        """Do nothing: a serial line is not dialled."""

    async def _read(self) -> bytes:
        while not self._inbox:
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._inbox)
        self._inbox.clear()
        return data

    def _on_bytes(self) -> None:
        if self._ends is None:
            return
        try:
            data = os.read(self._ends[0], READ_BYTES)
            if len(self._inbox) < READ_BYTES:
                self._inbox += data
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EIO):
                raise
        self._arrived.set()

    def send(self, data: bytes) -> None:
        """Put bytes on the line."""
        if self._ends is None:
            return
        try:
            os.write(self._ends[0], data)
        except BlockingIOError:
            return  # nobody reads the line: what does not fit is lost, as on a wire


def _claim(path: Path) -> socket.socket:
    """Return what says that this process serves a path; raises OSError (EADDRINUSE) while another one does.

    An abstract socket ends with its process, however that ends, and leaves no file. A lock on the terminal would not
    do: clients take that one, and the number of a terminal goes to whoever opens the next.
    """
    where = os.fsencode(path.parent.resolve() / path.name)
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(b"\0corridor-sim:" + hashlib.sha256(where).hexdigest().encode())
    except OSError:
        claim.close()
        raise
    return claim


def _occupied(path: Path) -> str:
    """Return why a serial path must not be replaced, "" when it is free or a left-over link of a simulation.

    Only a symlink of our own user to a pseudo terminal is ours; a device, a file or udev's link to a device never is.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return "" if path.parent.is_dir() else f"{path}: folder {path.parent} does not exist"
    except OSError as error:
        return f"{path}: {error.strerror}"
    if not stat.S_ISLNK(found.st_mode):
        what = "a real device" if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode) else "a file or folder"
        return f"{path} is {what}, wanted a free path or a link left by a simulation; it is not touched"
    target = str(path.readlink())
    if not target.startswith("/dev/pts/") or found.st_uid != os.geteuid():
        return f"{path} links to {target}, wanted a free path or our own link to /dev/pts; it is not touched"
    return ""
