"""Bytes to answers without a socket: what is believed, what is counted, and that hostile bytes raise nothing else."""

import random

import pytest

from drivers.blocks import Block
from drivers.errors import DeviceException, DriverError, WrongAnswer
from drivers.link import LinkCounters
from drivers.modbus.framing import MbapFraming, RtuFraming
from drivers.modbus.serial import crc

BLOCK = Block(3, 10, 3)
TRUTH = bytes.fromhex("000a000b000c")
N_DEFAULT = 20_000  # mutated answers of the default suite; a second or two
N_SLOW = 1_000_000


def sealed(*body):
    raw = bytes(body)
    return raw + crc(raw)


ANSWER = sealed(5, 3, 6, *TRUTH)
OTHER = sealed(5, 3, 6, *bytes(6))
NEIGHBOUR = sealed(9, 3, 2, 1, 2)
REFUSED = sealed(5, 0x83, 2)
ECHO = sealed(5, 3, 0, 10, 0, 3)


def rtu(doubts=()):
    framing = RtuFraming(LinkCounters(), crc, lambda: 0.0)
    for shape in doubts:
        framing.doubt(5, shape)
    framing.ask(5, BLOCK)
    return framing


def told(framing, *pieces):
    """Return what a burst proves, in whatever pieces it comes."""
    for piece in pieces:
        assert framing.take(piece) is None
    return framing.settle()


LAWFUL = {
    "alone": [ANSWER],
    "in two pieces": [ANSWER[:4], ANSWER[4:]],
    "byte by byte": [ANSWER[i : i + 1] for i in range(len(ANSWER))],
    "behind its echo": [ECHO + ANSWER],
    "behind another unit's": [NEIGHBOUR + ANSWER],
    "before another unit's": [ANSWER + NEIGHBOUR],
    "behind the exchange of another master": [sealed(9, 4, 0, 1, 0, 2) + sealed(9, 4, 4, 1, 2, 3, 4) + ANSWER],
    "behind a stray byte": [b"\x00" + ANSWER],
    "behind a byte like its own unit": [b"\x05" + ANSWER],
    "behind its own first bytes": [ANSWER[:3] + ANSWER],
    "behind noise": [b"\xff\x81\x00\x7e" + ANSWER],
    "before noise": [ANSWER + b"\x00\xff"],
    "twice": [ANSWER + ANSWER],
}


@pytest.mark.parametrize("kind", LAWFUL)
def test_the_answer_is_found_in_what_a_line_brings_with_it(kind):
    assert told(rtu(), *LAWFUL[kind]) == TRUTH


UNLAWFUL = {
    "nothing": [b""],
    "only the echo": [ECHO],
    "half of it": [ANSWER[:6]],
    "all but its checksum": [ANSWER[:-2]],
    "another unit's, with our shape": [sealed(6, 3, 6, *TRUTH)],
    "another function's": [sealed(5, 4, 6, *TRUTH)],
    "another length's": [sealed(5, 3, 4, *TRUTH[:4])],
    "a count that lies": [sealed(5, 3, 4, *TRUTH)],
    "an exception of another function": [sealed(5, 0x84, 2)],
    "a malformed exception": [sealed(5, 0x83)],
    "swapped checksum": [ANSWER[:-2] + ANSWER[:-3:-1]],
    "as Modbus TCP": [b"\x00\x01\x00\x00\x00\x09" + ANSWER[:-2]],
    "inside another unit's": [sealed(9, 3, len(ANSWER), *ANSWER)],
    "text": [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
}


@pytest.mark.parametrize("kind", UNLAWFUL)
def test_what_is_not_the_answer_proves_nothing(kind):
    found = told(rtu(), *UNLAWFUL[kind])
    assert found is None or isinstance(found, WrongAnswer)


def test_two_different_answers_to_one_request_are_both_refused():
    framing = rtu()
    assert isinstance(told(framing, ANSWER + OTHER), WrongAnswer)
    assert not framing.is_provable(5, BLOCK)


def test_an_answer_and_an_exception_to_one_request_are_both_refused():
    assert isinstance(told(rtu(), REFUSED + ANSWER), WrongAnswer)


def test_a_coil_answer_that_is_its_own_echo_is_not_believed():
    framing = RtuFraming(LinkCounters(), crc, lambda: 0.0)
    block = Block(1, 0x0312, 20, 0)  # 20 coils: three bytes, as the high byte of the address says
    echo = framing.ask(5, block)
    assert framing.take(echo) is None
    assert framing.settle() is None


def test_a_damaged_answer_is_told_at_once_and_counted():
    framing = rtu()
    counters = framing._counters
    damaged = ANSWER[:5] + bytes([ANSWER[5] ^ 4]) + ANSWER[6:]
    assert isinstance(told(framing, damaged), WrongAnswer)
    assert counters.crc_errors == counters.unit(5).crc_errors == 1


def test_every_small_damage_to_an_answer_is_found():
    """CRC-16 finds every error of up to three bits in frames of this length, and every burst of up to 16 bits."""
    for at in range(8 * len(ANSWER)):
        for other in range(at, 8 * len(ANSWER)):
            frame = bytearray(ANSWER)
            frame[at // 8] ^= 1 << at % 8
            if other != at:
                frame[other // 8] ^= 1 << other % 8
            assert told(rtu(), bytes(frame)) != TRUTH or bytes(frame) == ANSWER


def test_a_late_answer_is_known_by_its_shape_and_settles_what_was_asked_before():
    framing = rtu()
    framing.give_up()
    assert not framing.is_provable(5, BLOCK)
    assert framing.is_provable(5, Block(3, 10, 2))
    framing.take(ANSWER)
    framing.rest()
    assert framing.is_provable(5, BLOCK)
    assert framing._counters.late_frames == framing._counters.unit(5).late_frames == 1


def test_a_fence_that_is_answered_settles_everything_before_it():
    framing = rtu()
    framing.give_up()
    framing.ask(5, Block(3, 10, 1))
    assert told(framing, ANSWER + sealed(5, 3, 2, 0, 10)) == b"\x00\x0a"
    assert framing.is_provable(5, BLOCK)
    assert framing._counters.late_frames == 1


def test_an_exception_in_doubt_is_nobodys_and_leaves_only_itself_in_doubt():
    framing = rtu([(3, 6)])
    framing.ask(5, Block(3, 10, 1))
    assert isinstance(told(framing, REFUSED), WrongAnswer)
    assert framing.is_provable(5, BLOCK)
    assert not framing.is_provable(5, Block(3, 10, 1))


def test_who_answers_unasked_is_in_doubt():
    framing = rtu()
    framing._counters.unit(5).requests += 1
    assert told(framing, ANSWER) == TRUTH
    framing.take(ANSWER)
    framing.rest()
    assert not framing.is_provable(5, BLOCK)
    assert framing._counters.foreign_frames == 1


def mbap():
    framing = MbapFraming(LinkCounters())
    asked = framing.ask(5, BLOCK)
    return framing, asked[:2]


def wrap(tid, body, following=None):
    return tid + b"\0\0" + (len(body) if following is None else following).to_bytes(2, "big") + body


BODY = bytes([5, 3, 6]) + TRUTH


@pytest.mark.parametrize("cut", range(1, len(BODY) + 6))
def test_an_answer_may_come_in_pieces(cut):
    framing, tid = mbap()
    frame = wrap(tid, BODY)
    assert framing.take(frame[:cut]) is None
    assert framing.take(frame[cut:]) == TRUTH


def test_an_answer_is_found_behind_foreign_frames_echo_and_noise():
    for before in (
        lambda tid: wrap(bytes([tid[0] ^ 1, tid[1]]), BODY),
        lambda tid: wrap(tid, bytes([5, 3, 0, 10, 0, 3])),
        lambda tid: b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8",
        lambda tid: b"\x00",
        lambda tid: wrap(tid, BODY, 1),
    ):
        for split in (False, True):
            framing, tid = mbap()
            parts = [before(tid), wrap(tid, BODY)]
            found = [framing.take(part) for part in (parts if split else [b"".join(parts)])]
            assert found[-1] == TRUTH, (before(tid), split)


def test_wrong_frames_with_the_right_transaction_are_told_at_once():
    for body in (
        bytes([6, 3, 6]) + TRUTH,
        bytes([5, 4, 6]) + TRUTH,
        bytes([5, 3, 4]) + TRUTH,
        bytes([5, 3, 6]) + TRUTH + b"\0\0",
        bytes([5, 3, 6]) + TRUTH[:4],
        bytes([5, 0x84, 2]),
        bytes([5, 0x83, 2, 0]),
    ):
        framing, tid = mbap()
        assert isinstance(framing.take(wrap(tid, body)), WrongAnswer), body
        assert framing._counters.foreign_frames == 1


def test_an_exception_is_the_devices_only_with_its_unit_function_and_length():
    framing, tid = mbap()
    found = framing.take(wrap(tid, bytes([5, 0x83, 2])))
    assert isinstance(found, DeviceException)
    assert found.code == 2


def test_a_late_answer_is_counted_and_a_half_one_closes_the_connection():
    framing, tid = mbap()
    framing.give_up()
    framing.ask(5, BLOCK)
    assert framing.take(wrap(tid, BODY)) is None
    assert framing._counters.late_frames == 1
    framing.take(b"\x01\x02\x00")
    framing.give_up()
    assert framing.is_broken


def test_transaction_ids_never_are_zero_and_do_not_repeat_soon():
    for _ in range(20):
        framing = MbapFraming(LinkCounters())
        seen = [framing.ask(1, BLOCK)[:2] for _ in range(5000)]
        assert b"\0\0" not in seen
        assert len(set(seen)) >= len(seen) - 1


def mutated(rng, frame):
    """Return an answer as an unlucky network, converter or meter might leave it."""
    out = bytearray(frame)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(7):
            case 0 if out:
                out[at % len(out)] = rng.choice((0, 1, 2, 3, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 1:
                out[at:at] = rng.randbytes(rng.randint(1, 9))
            case 2:
                del out[at : at + rng.randint(1, 5)]
            case 3:
                del out[at:]
            case 4:
                out += frame[: rng.randint(0, len(frame))]
            case 5:
                out[at:at] = frame
            case _ if out:
                out[at % len(out)] ^= 1 << rng.randrange(8)
    return bytes(out)


def chew(n, seed):
    """Feed n mutated answers, in pieces, to both codecs: only answers and refusals come out, and memory stays flat."""
    rng = random.Random(seed)
    ours = MbapFraming(LinkCounters())
    serial = RtuFraming(LinkCounters(), crc, lambda: 0.0)
    for i in range(n):
        framing = (ours, serial)[i % 2]
        asked = framing.ask(5, BLOCK)
        frame = wrap(asked[:2], BODY) if framing is ours else ANSWER
        raw = mutated(rng, frame)
        cut = rng.randrange(len(raw) + 1)
        found = framing.take(raw[:cut])
        found = framing.take(raw[cut:]) if found is None else found
        found = framing.settle() if found is None else found
        if found is None:
            framing.give_up()
        assert found is None or isinstance(found, bytes | DriverError), raw
        if isinstance(found, bytes):
            assert len(found) == BLOCK.n_bytes, raw
        assert len(framing._held) < 2048
        framing.is_broken = False
    assert len(serial.doubts.get(5).shapes if 5 in serial.doubts else ()) < 300


def test_mutated_answers_raise_nothing():
    chew(N_DEFAULT, 1)


@pytest.mark.slow
def test_a_million_mutated_answers_raise_nothing():
    chew(N_SLOW, 2)


@pytest.mark.parametrize("n_bytes", [0, 251])
def test_an_unasked_answer_that_no_read_can_have_is_counted_but_puts_nothing_in_doubt(n_bytes):
    counters = LinkCounters()
    counters.unit(1)
    framing = RtuFraming(counters, crc, lambda: 0.0)
    body = bytes((1, 3, n_bytes)) + bytes(n_bytes)
    framing.take(body + crc(body))
    framing.rest()
    assert counters.foreign_frames == 1
    assert not framing.doubts
