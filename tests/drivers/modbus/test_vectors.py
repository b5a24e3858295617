"""Wire bytes and configurations from other projects' tests: ours agree, or differ for a reason that stands here."""

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

from drivers.blocks import Block
from drivers.errors import DeviceException, DriverError, NoAnswer
from drivers.link import LinkCounters, LinkSpec, SerialLine
from drivers.modbus import open_link
from drivers.modbus.framing import MbapFraming
from drivers.points import Point
from gateway.acquire.cost import cost_of
from gateway.model.config import check
from tests.drivers.modbus.test_link import frame, link, registers, server
from tests.gateway import build

VECTORS = Path(__file__).parents[4] / "shared" / "vectors"


def vectors(name, kind):
    path = VECTORS / name
    if not path.exists():
        pytest.skip("needs ../shared/vectors")
    return json.loads(path.read_text())[kind]


def test_requests_and_answers_of_the_specification():
    kinds = {"read_coils": 0, "read_discrete_inputs": 0, "read_holding_registers": 2, "read_input_registers": 2}
    pdus = vectors("modbus_frames.json", "spec_examples")["pdus"]
    for name, item_bytes in kinds.items():
        asked, answered = (bytes.fromhex(pdus[name][side]) for side in ("request", "response"))
        start, count = int.from_bytes(asked[1:3], "big"), int.from_bytes(asked[3:5], "big")
        block = Block(asked[0], start, count, item_bytes)
        framing = MbapFraming(LinkCounters())
        request = framing.ask(17, block)
        assert request[7:] == asked, name
        assert framing.take(frame(int.from_bytes(request[:2], "big"), 17, answered)) == answered[2:], name


async def test_rtu_frames_are_read_refused_or_told_as_exceptions():
    for case in vectors("modbus_frames.json", "rtu_read"):
        raw = bytes.fromhex(case["frame"])
        block = Block(raw[1] & 0x7F, 0, 2 if raw[1] == 3 else 1, 2 if raw[1] == 3 else 0)

        async def answer(reader, writer, raw=raw):
            with contextlib.suppress(ConnectionError):
                await reader.readexactly(8)
                writer.write(raw)
                await reader.read()
            writer.close()

        listener = await asyncio.start_server(answer, "127.0.0.1", 0)
        spec = LinkSpec("b", "rtu+tcp", "127.0.0.1", listener.sockets[0].getsockname()[1], timeout_s=0.3)
        one = open_link(spec)
        async with listener:
            if case["expect"] == "ok":
                assert await one.read(raw[0], block) == b"".join(r.to_bytes(2, "big") for r in case["registers"])
            elif case["expect"] == "exception":
                with pytest.raises(DeviceException) as caught:
                    await one.read(raw[0], block)
                assert caught.value.code == case["exception"]
            else:
                with pytest.raises(NoAnswer):
                    await one.read(raw[0], block)
            await one.close()


async def test_an_answer_behind_one_of_another_transaction_is_found():
    def two(tid, unit, pdu):
        return frame(tid ^ 0x0101, unit, registers(pdu, [9, 9, 9])) + frame(tid, unit, registers(pdu, [1, 2, 3]))

    async with server(two) as (port, _):
        one = link(port)
        assert await one.read(1, Block(3, 0, 3)) == bytes.fromhex("000100020003")
        await one.close()


async def test_streams_of_the_other_project_never_become_values_of_ours():
    """Its client also writes and accepts any function; ours asked for something else and must say so."""
    for case in vectors("modbus_frames.json", "tcp_read"):
        stream = [bytes.fromhex(part) for part in case["stream"]]

        def answer(tid, unit, pdu, stream=stream, wanted=case["expect_txid"]):
            shift = tid - wanted
            return b"".join(
                ((int.from_bytes(p[:2], "big") + shift) & 0xFFFF).to_bytes(2, "big") + p[2:] for p in stream
            )

        async with server(answer) as (port, _):
            one = link(port)
            with pytest.raises(DriverError) as caught:
                await one.read(case.get("unit", 49), Block(3, 0, 2))
            assert caught.value.quality >> 31
            await one.close()


def test_character_times_of_serial_lines():
    for case in vectors("modbus_frames.json", "rtu_char_time_ns"):
        line = SerialLine(case["baud"], 8, "E", 1)
        assert line.bits_per_character == case["bits"]
        assert int(1e9 * line.bits_per_character / line.baudrate) == case["ns"]


def test_configurations_that_must_be_rejected_are(tmp_path):
    orders = {
        "ABCD": ("big", "big"),
        "DCBA": ("little", "little"),
        "BADC": ("big", "little"),
        "CDAB": ("little", "big"),
    }
    for case in vectors("telegraf_modbus_dev.json", "reject"):
        lines = ['[gateway]\nid = "g"\ncorridor = "c"\nsite = "s"\n[mqtt]\nurl = "mqtt://h"']
        lines.append('[[link]]\nname = "l"\nurl = "tcp://h:502"\n[[device]]\nname = "d"\nlink = "l"\nunit = 1')
        for asked in case["requests"]:
            order = asked.get("ByteOrder", "ABCD")
            words, registers_ = orders.get(order, (order, order))
            extra = {"Optimization": "optimization", "MaxExtraRegisters": "max_extra_registers"}
            lines += [f'{ours} = "{asked[theirs]}"' for theirs, ours in extra.items() if theirs in asked]
            for field in asked.get("Fields", [{"Name": "x", "Address": 0}]):
                lines.append(f'[[device.point]]\nfunction = "{asked["RegisterType"]}"\naddress = {field["Address"]}')
                bits = asked["RegisterType"] in ("coil", "discrete")
                lines.append(f'type = "{"bool" if bits else field.get("InputType", "UINT16").lower()}"')
                lines.append(f'word_order = "{words}"\nbyte_order = "{registers_}"')
                lines += [f'name = "{field["Name"]}"'] if "Name" in field else []
                lines += [f'output = "{field["OutputType"]}"'] if "OutputType" in field else []
        path = tmp_path / "gateway.toml"
        path.write_text("\n".join(lines))
        assert check(path), case["name"]


def test_endpoints_are_taken_or_refused(tmp_path):
    """Ours names the framing in the scheme (rtu+tcp, rtu) where theirs has a mode and file://; ASCII is not spoken."""
    for case in vectors("telegraf_modbus_dev.json", "controllers"):
        url, mode = case["controller"], case.get("mode", "auto")
        if mode == "ASCIIoverTCP" or url == "file://com2" or url.startswith("file://./"):
            continue
        ours = (
            url.replace("file://", "rtu://") if mode != "RTU" or url.startswith("file") else url.replace("tcp", "rtu")
        )
        path = tmp_path / "gateway.toml"
        path.write_text(
            '[gateway]\nid = "g"\ncorridor = "c"\nsite = "s"\n[mqtt]\nurl = "mqtt://h"\n'
            f'[[link]]\nname = "l"\nurl = "{ours}"\n'
            '[[device]]\nname = "d"\nlink = "l"\nprofile = "eastron_sdm120"\n'
        )
        assert bool(check(path)) == ("errmsg" in case), case["name"]


def test_groupings_cost_no_more_than_theirs():
    """One request per field is a strategy that we do not offer: nobody needs more requests than it takes."""
    spec = LinkSpec("l", "rtu", path="/dev/ttyUSB0", serial=SerialLine(9600, 8, "E", 1))
    cost = cost_of(spec)

    widths = {1: "uint16", 2: "uint32", 4: "uint64"}
    for case in vectors("telegraf_modbus_dev.json", "grouping"):
        points = [
            Point("x", "holding", each["start"] + i * each.get("increment", 0), widths.get(each["length"], "string20"))
            for each in case["inputs"]
            if not each.get("omit")
            for i in range(each["count"])
        ]
        limit = case.get("max_registers") or 125
        found = build.blocks(build.device("d", [], max_registers=limit, max_gap=125), points, cost)
        assert all(block.count <= limit for block in found), case["name"]
        for point in points:
            end = point.address + point.n_registers
            assert any(b.start <= point.address and end <= b.start + b.count for b in found), case["name"]
        if "expected" in case:
            theirs = sum(cost.of(group["length"], 2) for group in case["expected"])
            assert sum(map(cost.read_s, found)) <= theirs + 1e-9, case["name"]
        else:
            assert len(found) <= case["expected_request_count"], case["name"]
