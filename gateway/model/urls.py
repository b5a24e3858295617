"""URLs of configuration files: which schemes there are, and what each may say."""

from __future__ import annotations

import contextlib
import ipaddress
import os.path
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from drivers.toml import near, shown

MAX_PORT: Final = 65_535
MAX_HOST: Final = 253  # characters of a name in the DNS (RFC 1035, 2.3.4: 255 bytes on the wire)
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


@dataclass(frozen=True, slots=True)
class Form:
    """What a URL of one scheme looks like.

    example  as messages show it;  default_port  0: the client knows
    is_local  names a path of this machine, and no host
    path     whether one may stand behind the host;  keys  of the query;  needs  those that must be there
    """

    example: str
    default_port: int = 0
    is_local: bool = False
    path: Literal["none", "any", "needed"] = "none"
    keys: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


_RTU: Final = "rtu:///dev/ttyUSB0?baudrate=9600&parity=E"
_INFLUX1: Final = "influx1://host:8086/database"
_INFLUX2: Final = "influx2://host:8086?org=o&bucket=b"

LINKS: Final = {
    "tcp": Form("tcp://host:502", 502),
    "tls": Form("tls://host:802", 802),
    "rtu+tcp": Form("rtu+tcp://host:502", 502),
    "rtu": Form(_RTU, is_local=True, keys=("baudrate", "bytesize", "parity", "stopbits")),
}
BROKERS: Final = {
    "mqtt": Form("mqtt://host:1883"),
    "mqtts": Form("mqtts://host:8883"),
    "ws": Form("ws://host:80/mqtt", path="any"),
    "wss": Form("wss://host:443/mqtt", path="any"),
}
STORES: Final = {
    "influx2": Form(_INFLUX2, path="any", keys=("org", "bucket"), needs=("bucket",)),
    "influx2s": Form(_INFLUX2.replace(":", "s:", 1), path="any", keys=("org", "bucket"), needs=("bucket",)),
    "influx1": Form(_INFLUX1, path="needed"),
    "influx1s": Form(_INFLUX1.replace(":", "s:", 1), path="needed"),
    "sqlite": Form("sqlite:///path/to/file", is_local=True),
}


@dataclass(frozen=True, slots=True)
class Url:
    """A URL without faults, taken apart; `path` of a local one without superfluous slashes."""

    scheme: str
    host: str
    port: int
    path: str
    query: Mapping[str, str]


def parse(text: str, forms: Mapping[str, Form]) -> Url | None:
    """Return the parts of a URL, None when it has faults."""
    if any(faults(text, forms, "")):
        return None
    url = _split(text)
    form = forms[url.scheme]
    path = os.path.normpath("/" + url.path.lstrip("/")) if form.is_local else url.path
    return Url(url.scheme, url.hostname or "", url.port or form.default_port, path, dict(parse_qsl(url.query)))


def faults(text: str, forms: Mapping[str, Form], secrets: str) -> Iterator[str]:
    """Yield everything that is wrong with a URL that must have one of these forms.

    secrets  where user and password belong instead
    """
    got, url = f"got {shown(text)}", _split(text)
    form = forms.get(url.scheme)
    if form is None:
        yield f"{got}, wanted {' or '.join(form.example for form in forms.values())}{near(url.scheme, forms)}"
        return
    if form.is_local:
        if url.netloc or not url.path.startswith("/") or url.path.endswith("/"):
            yield f"{got}, wanted {form.example}"
    elif "@" in text:  # what stands around it cannot be told apart
        yield f"{got}, wanted no user or password in a URL: {secrets}"
        return
    else:
        yield from _host_faults(url, form, got)
    if "#" in text:
        yield f"{got}, wanted nothing behind a '#'"
    if not unquote(text).isprintable():
        yield f"{got}, wanted no control characters"
    yield from _query_faults(url, form)


def _host_faults(url: SplitResult, form: Form, got: str) -> Iterator[str]:
    if not url.netloc:
        yield f"{got}, wanted {form.example}"
        return
    if not is_host(url.hostname or ""):
        yield f"{got}, wanted a host name or address as in {form.example}"
    try:
        has_port = url.port != 0
    except ValueError:
        has_port = False
    if not has_port:
        yield f"{got}, wanted a port from 1 to {MAX_PORT}"
    path = url.path.strip("/")
    if (path and form.path == "none") or (not path and form.path == "needed"):
        yield f"{got}, wanted {form.example}{' and nothing behind it' if path else ''}"


def _query_faults(url: SplitResult, form: Form) -> Iterator[str]:
    given = Counter(key for key, _ in parse_qsl(url.query, keep_blank_values=True))
    for key, n in given.items():
        if key not in form.keys:
            yield f"unknown key {shown(key)}" + (near(key, form.keys, ", ") or f", wanted {form.example}")
        elif n > 1:
            yield f"{key}: given {n} times, wanted one"
    yield from (f"no {key}, wanted {form.example}" for key in form.needs if key not in given)


def is_host(text: str) -> bool:
    """Return whether this is an IP address, or a name that a resolver can look up."""
    if len(text) > MAX_HOST:
        return False
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(text))
    try:
        labels = text.encode("idna").decode().removesuffix(".").split(".")
    except UnicodeError:
        return False
    return not labels[-1].isdecimal() and all(map(_LABEL.fullmatch, labels))


def listening(text: str) -> tuple[str, int] | None:
    """Return host and port of a listening address, None if it is none; port 0: the kernel chooses."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    number = number_in(port, 0, MAX_PORT)
    return (host, number) if number is not None and is_host(host) else None


def number_in(text: str, low: int, high: int) -> int | None:
    """Return the whole number that a text is, None if it is none from low to high."""
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) and low <= int(text) <= high else None


def _split(text: str) -> SplitResult:
    """Return the parts of a URL; one that cannot be taken apart has no scheme, which every caller refuses."""
    try:
        return urlsplit(text)
    except ValueError:
        return SplitResult("", "", text, "", "")
