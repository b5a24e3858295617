"""The bytes of a batch: exact round trips, and nothing damaged is ever taken for whole."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.spool import record
from gateway.spool.record import SpooledFrame

floats = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.integers(-(10**6), 10**6).map(lambda x: x / 10),
    st.just(-0.0),
)
qualities = st.sampled_from([0, 0, 0, 0x40940000, 0x80310000, 0x808C0000])


@st.composite
def batches(draw):
    rows = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    decimals = [np.array([draw(st.integers(-2, 6)) for _ in range(n)], np.int8) for n in rows]
    frames = []
    for k in range(draw(st.integers(1, 8))):
        scan = draw(st.integers(0, len(rows) - 1))
        quality = np.array([draw(qualities) for _ in range(rows[scan])], np.uint32)
        value = np.array([draw(floats) for _ in range(rows[scan])])
        value[quality >= 1 << 31] = np.nan
        tick = draw(st.sampled_from([1, 1_000]))
        times = [draw(st.integers(0, 2**52)) * tick for _ in range(4)]
        frames.append(SpooledFrame(scan, 1 + k, *times, value, quality))
    return frames, decimals, rows


@given(batches())
def test_a_batch_comes_back_bit_for_bit(case):
    frames, decimals, rows = case
    body = record.encode_block("3f9a1b2c", record.Block.of(frames), decimals)
    batch = record.pack_batch(7, 3, record.FRAMES, 1, len(frames), sum(f.n_good for f in frames), body)
    head = record.head_at(batch, 0, 7)
    assert head is not None
    assert (head.boot, head.first_seq, head.n_frames, head.size) == (3, 1, len(frames), len(batch))
    assert record.catalog_of(body) == "3f9a1b2c"
    back = record.decode_block(record.body_of(batch, 0, head), head, rows).frames()
    for before, after in zip(frames, back, strict=True):
        assert (before.scan, before.seq, before.due_ns, before.time_ns) == (
            after.scan,
            after.seq,
            after.due_ns,
            after.time_ns,
        )
        assert (before.uncertainty_ns, before.offset_ns) == (after.uncertainty_ns, after.offset_ns)
        assert np.array_equal(before.quality, after.quality)
        assert before.value.tobytes() == after.value.tobytes() or np.array_equal(
            before.value, after.value, equal_nan=True
        )
        good = before.quality < 1 << 31
        assert before.value[good].tobytes() == after.value[good].tobytes()


def test_crc32c_of_the_standard():
    assert record.crc32c(b"123456789") == 0xE3069283  # RFC 3720, appendix B.4, and every catalogue of CRCs
    assert record.crc32c(b"1234", b"", b"56789") == 0xE3069283


def test_every_flipped_byte_is_noticed():
    batch = record.pack_batch(7, 3, record.FRAMES, 1, 1, 1, b"payload of a batch")
    meant = record.BATCH.size + len(b"payload of a batch")
    for i in range(meant):
        damaged = bytearray(batch)
        damaged[i] ^= 0x10
        assert record.head_at(bytes(damaged), 0, 7) is None, i


def test_a_batch_of_another_segment_is_not_ours():
    batch = record.pack_batch(7, 3, record.FRAMES, 1, 1, 1, b"x")
    assert record.head_at(batch, 0, 8) is None
    assert record.read_segment_header(record.segment_header(7, 8192)) == (7, 8192)
    assert record.read_segment_header(b"\0" * 4096) is None
