"""What a value is, the slow way: one point, one list of 16-bit words, Python's struct; shares no code with drivers."""

import math
import struct

CODES = {
    "int16": "h", "uint16": "H", "bitfield16": "H", "float16": "e",
    "int32": "i", "uint32": "I", "bitfield32": "I", "float32": "f",
    "int64": "q", "uint64": "Q", "float64": "d",
}  # fmt: skip


def decode(words, kind, word_order="big", byte_order="big", bit=None, scale=1.0, offset=0.0):
    """Return the value of 16-bit words in wire order, None for what is not a usable number."""
    pairs = [(w >> 8, w & 255) for w in words]
    if byte_order == "little":
        pairs = [(low, high) for high, low in pairs]
    if word_order == "little":
        pairs = pairs[::-1]
    raw = bytes(b for pair in pairs for b in pair)
    if kind == "bool":
        number = (raw[0] << 8 | raw[1]) >> bit & 1
    elif kind.endswith(("_low", "_high")):
        number = raw[1] if kind.endswith("_low") else raw[0]
        if kind.startswith("int") and number > 127:
            number -= 256
    else:
        number = struct.unpack(">" + CODES[kind], raw)[0]
    if isinstance(number, float):
        smallest = {"float32": 2.0**-126, "float64": 2.0**-1022}.get(kind, 0.0)
        if not math.isfinite(number) or 0 < abs(number) < smallest:
            return None
    power = round(-math.log10(scale)) if 0 < scale <= 1 else 0
    is_decimal = 0 < scale <= 1 and float(f"1e-{power}") == scale
    value = float(number) / 10**power if is_decimal else float(number) * scale
    return value + offset if math.isfinite(value + offset) else None
