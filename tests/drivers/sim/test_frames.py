"""RTU requests are cut out of whatever stream they come in; checksums and times are those of the standard."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.link import SerialLine
from drivers.sim.frames import RtuRequests, crc16, line_time_s, mbap, rtu

READ = b"\x03\x00\x00\x00\x0a"
VECTORS = Path(__file__).parents[4] / "shared" / "vectors" / "modbus_frames.json"


def test_crc_of_the_standards_own_example():
    # Modbus over Serial Line V1.02, appendix B: 02 07 -> CRC 41 12
    assert rtu(2, b"\x07") == b"\x02\x07\x41\x12"
    assert crc16(b"\x02\x07\x41\x12") == 0


def test_mbap_counts_unit_and_pdu():
    assert mbap(0x1234, 9, READ) == bytes.fromhex("123400000006 09 030000000a")


@given(st.lists(st.tuples(st.integers(1, 247), st.integers(0, 65535)), min_size=1, max_size=5), st.data())
def test_requests_come_out_whole_however_the_stream_is_cut(requests, data):
    stream = b"".join(rtu(unit, b"\x04" + start.to_bytes(2, "big") + b"\x00\x02") for unit, start in requests)
    framer, out, at = RtuRequests(), [], 0
    while at < len(stream):
        n = data.draw(st.integers(1, len(stream) - at))
        out += framer.feed(stream[at : at + n])
        at += n
    assert [(unit, int.from_bytes(pdu[1:3], "big")) for unit, pdu in out] == requests
    assert not framer.has_part


@pytest.mark.parametrize("pdu", [b"\x05\x00\x01\xff\x00", b"\x10\x00\x01\x00\x02\x04\x00\x01\x00\x02", b"\x07"])
def test_the_length_of_other_functions_is_known_too(pdu):
    assert RtuRequests().feed(rtu(3, pdu)) == [(3, pdu)]


def test_an_unknown_function_ends_at_the_silence():
    framer = RtuRequests()
    assert framer.feed(rtu(3, b"\x2b\x0e\x01\x00")) == []
    assert framer.has_part
    assert framer.silence() == [(3, b"\x2b\x0e\x01\x00")]


def test_after_a_broken_frame_the_next_one_is_heard():
    framer = RtuRequests()
    broken = bytearray(rtu(3, READ))
    broken[-1] ^= 1
    assert framer.feed(bytes(broken)) == []
    assert framer.silence() == []
    assert framer.crc_errors == 1
    assert framer.feed(rtu(3, READ)) == [(3, READ)]


def test_rubbish_without_end_does_not_pile_up():
    framer = RtuRequests()
    for _ in range(100):
        framer.feed(b"\xff" * 100)
    assert len(framer._bytes) <= 1024


def test_line_time_of_the_domains_example():
    # DOMAIN section 3, item 14: a read of 40 registers at 9600 8N1 takes about 97 ms, with both silences 104 ms
    assert line_time_s(SerialLine(9600), 8, 85) == pytest.approx((8 + 85 + 3.5) * 10 / 9600)
    assert line_time_s(SerialLine(19200, parity="E"), 8, 25) == pytest.approx(36.5 * 11 / 19200)


@pytest.mark.skipif(not VECTORS.exists(), reason=f"{VECTORS} is not on this machine")
def test_foreign_vectors_agree_on_the_crc():
    found = json.loads(VECTORS.read_text())
    assert [crc16(bytes.fromhex(one["data"])).to_bytes(2, "little").hex() for one in found["crc16"]] == [
        one["crc_le"] for one in found["crc16"]
    ]
    for one in found["rtu_assemble"]:
        assert rtu(one["unit"], bytes((one["function"],)) + bytes.fromhex(one["payload"])).hex() == one["frame"]
