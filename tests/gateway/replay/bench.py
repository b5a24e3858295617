"""A gateway of three devices with several scans, run live into a real spool, and its replay from the command line."""

import csv
import json
import struct

import numpy as np

from drivers import quality
from gateway.acquire.plan import plan
from gateway.alarm.engine import AlarmEngine
from gateway.alarm.journal import Journal
from gateway.cli import main
from gateway.detect.bank import Bank
from gateway.detect.flags import names
from gateway.detect.tags import tags_of
from gateway.model.config import load_gateway
from gateway.pipeline import Pipeline
from gateway.spool.disk import DiskSpool
from gateway.wire.frame_lines import scan_texts
from tests.gateway.clock import FakeClock

S = 1_000_000_000
T0 = 1_764_000_000 * S
CONFIG = """
[gateway]
id = "gw1"
corridor = "c"
site = "s"

[mqtt]
url = "mqtt://127.0.0.1:1883"

[[link]]
name = "l"
url = "tcp://127.0.0.1:502"

[[device]]
name = "a"
link = "l"
unit = 1
asset = "skid"
period_s = 1.0

  [[device.point]]
  name = "flow"
  function = "holding"
  address = 0
  type = "float32"

  [[device.point]]
  name = "level"
  function = "holding"
  address = 2
  type = "int16"
  scale = 0.1

  [device.tag.level]
  period_s = 5.0

  [device.tag.flow]
  high = 60.0
  deadband = 2.0
  on_delay_s = 3

[[device]]
name = "b"
link = "l"
unit = 2
asset = "skid"
period_s = 1.0

  [[device.point]]
  name = "pressure"
  function = "holding"
  address = 0
  type = "float32"

  [[device.point]]
  name = "state"
  function = "holding"
  address = 2
  type = "uint16"
  kind = "state"

[[device]]
name = "c"
link = "l"
unit = 3
period_s = 2.0

  [[device.point]]
  name = "power"
  function = "holding"
  address = 0
  type = "float32"
"""


def write_config(folder, text=CONFIG):
    path = folder / "gateway.toml"
    path.write_text(text)
    return path


class Live:
    """The gateway as it runs; `seen` has (scan, time_ns, score, flags) of every frame."""

    def __init__(self, folder, config, started_ns=T0):
        """started_ns: what the clock that never steps says at T0."""
        self.table = plan(load_gateway(config)).table
        self.made = plan(load_gateway(config))
        self.clock = FakeClock()
        self.clock.now_ns, self.clock.offset_ns = started_ns, T0 - started_ns
        self._started_ns = started_ns
        texts = scan_texts(self.table)
        self.folder = folder / "spool"
        self.spool = DiskSpool(self.folder, 4_000_000, "3f9a1b2c", texts)
        self.pipeline = Pipeline(
            self.table, self.spool, AlarmEngine(self.table), Journal(folder / "journal"), self, self.clock
        )
        self.pipeline.judge_from_now(Bank(tags_of(self.table)))
        self.seen = []
        self._told = {}

    def offer(self, device, seq, line):
        """Take note of what the detectors say of the frame that is offered."""
        scan = self._told.pop(seq)
        rows = slice(scan.start, scan.stop)
        time_ns = int(self.pipeline._time_ns[scan.number])
        self.seen.append((scan, time_ns, self.pipeline._score[rows].copy(), self.pipeline._flags[rows].copy()))

    def flush(self):
        pass

    async def run(self, seconds, signal, failing=lambda name, k: False, *, together=False):
        """Poll every device as its scans are due; signal(name, k) returns its registers as bytes.

        together: the frames of a second go through the kernels in one call
        """
        self.pipeline._is_scheduled = True  # turns are ours
        for k in range(seconds):
            self.clock.now_ns = self._started_ns + k * S
            for number, device in enumerate(self.made.devices):
                due = [scan for scan in self.table.scans if scan.device == number and k % round(scan.period_s) == 0]
                if due:
                    self._poll(device, due, signal, k, failing)
                if not together:
                    self.pipeline._turn()
            self.pipeline._turn()
            if k % 500 == 0:
                await self.spool.commit()
        await self.spool.close()

    def _poll(self, device, due, signal, k, failing):
        name = device.device.name
        mask = sum(1 << i for i, scan in enumerate(device.scans) if scan in due)
        for read in device.due(mask).reads:
            start = 2 * read.block.start
            if failing(name, k):
                self.pipeline.fail(read, quality.BAD_TIMEOUT)
            else:
                self.pipeline.put(read, signal(name, k)[start : start + 2 * read.block.count])
        began = self.clock.monotonic_ns()
        self.clock.now_ns += 4_000_000
        seq = self.spool.next_seq + len(self.pipeline._ready)
        self._told.update((seq + i, scan) for i, scan in enumerate(due))
        self.pipeline.finish(due, [began] * len(due), began, self.clock.monotonic_ns())


def skid(seed=1):
    """Return a signal: a day in the life of a skid with a spike, a step, a frozen and a high value."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 1, (20_000, 4))

    def signal(name, k):
        load = 50 + 3 * np.sin(k / 300)
        flow, level = load + 0.3 * noise[k, 0], 20 + load / 10 + 0.2 * noise[k, 1]
        pressure, power = 5 + load / 20 + 0.02 * noise[k, 2], 100 + load + noise[k, 3]
        flow += 30.0 if 2500 <= k < 2510 else 0.0
        pressure = 9.0 if k == 1500 else pressure
        pressure += 0.6 if k >= 3000 else 0.0
        power = 150.0 if 1800 <= k < 2400 else power
        state = (k // 3) % 2 if 1000 <= k < 1100 else 1
        if name == "a":
            return struct.pack(">fh", flow, round(10 * level))
        return struct.pack(">fH", pressure, state) if name == "b" else struct.pack(">f", power)

    return signal


def failing(name, k):
    """Return whether a device does not answer."""
    return (name == "a" and k % 97 == 5) or (name == "c" and 600 <= k < 640)


def replayed(capsys, *arguments):
    """Run the command; return (exit code, standard output, lines of standard error)."""
    capsys.readouterr()
    code = main(["replay", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, [line for line in err.splitlines() if not line.startswith("compiling kernels")]


def summary(capsys, *arguments):
    """Run the command with --json; return its object."""
    code, out, err = replayed(capsys, *arguments, "--json")
    assert (code, err) == (0, [])
    return json.loads(out)


def table(path):
    """Return the rows of a CSV file as dicts."""
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def text_of(flags):
    return "|".join(names(int(flags)))
