"""The name in a certificate: what a broker with use_identity_as_username takes for the user.

    Certificate ::= SEQUENCE { tbs, signature algorithm, signature }
    tbs         ::= SEQUENCE { [0] version (absent in version 1), serial, algorithm, issuer, validity, subject, ... }
    subject     ::= SEQUENCE OF SET OF SEQUENCE { OBJECT IDENTIFIER, text }

Source: RFC 5280, section 4.1. The standard library shows a subject only of a peer or of an authority.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_VERSION: Final = 0xA0
_SUBJECT: Final = 4  # after serial, algorithm, issuer, validity
_COMMON_NAME: Final = bytes.fromhex("550403")  # object identifier 2.5.4.3
_TEXTS: Final = (0x0C, 0x13, 0x14, 0x16)  # UTF8String, PrintableString, TeletexString, IA5String
_LONG_FORM: Final = 0x80  # of a length: the other seven bits count the bytes that say it


def common_name(path: Path) -> str:
    """Return the first common name of the subject of the first certificate in a PEM file: a chain begins with its own.

    Raises OSError, and ValueError for a file without a certificate or a subject without such a name.
    """
    pem = _PEM.search(path.read_bytes())
    if pem is None:
        raise ValueError("holds no PEM certificate")
    try:
        names = list(_common_names(base64.b64decode(pem[1])))
    except (ValueError, IndexError):
        raise ValueError("holds a damaged certificate") from None
    if not names:
        raise ValueError("its subject has no common name (CN)")
    tag, text = names[0]
    if tag not in _TEXTS:
        raise ValueError(f"its common name (CN) is of type {tag:#04x}, wanted UTF8String or PrintableString")
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise ValueError("its common name (CN) is not UTF-8") from None


def _common_names(certificate: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and bytes of every common name of the subject."""
    whole = _inside(certificate)
    tbs = _inside(whole)
    fields = [content for tag, content in _items(tbs) if tag != _VERSION]
    for _, names in _items(fields[_SUBJECT]):
        for _, name in _items(names):
            (_, kind), value = _items(name)
            if kind == _COMMON_NAME:
                yield value


def _inside(der: bytes) -> bytes:
    """Return what is inside the first item."""
    return next(_items(der), (0, b""))[1]


def _items(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each item; raises ValueError or IndexError where it is cut off."""
    at = 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length >= _LONG_FORM:
            n = length - _LONG_FORM
            length = int.from_bytes(der[at : at + n], "big")
            at += n
        if at + length > len(der):
            raise ValueError("cut off")
        yield tag, der[at : at + length]
        at += length
