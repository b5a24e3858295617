"""URLs: what cannot be meant is refused, whatever would end in a traceback later first of all."""

import pytest

from gateway.model import urls
from gateway.model.urls import BROKERS, LINKS, STORES


def told(text, forms):
    return list(urls.faults(text, forms, "somewhere else"))


GOOD = {
    "tcp://10.0.0.5:502": LINKS,
    "tcp://[::1]:502": LINKS,
    "tcp://[fe80::1%eth0]": LINKS,
    "tcp://meter_1.example.": LINKS,
    "rtu+tcp://zähler.example:1": LINKS,
    "rtu:///dev/ttyUSB0?baudrate=9600&bytesize=8&parity=E&stopbits=1": LINKS,
    "mqtt://h": BROKERS,
    "wss://h/mqtt": BROKERS,
    "influx2://h:8086?org=o&bucket=b": STORES,
    "influx2s://h/behind/a/proxy?bucket=b": STORES,
    "influx1s://h:8086/database": STORES,
    "sqlite:///srv/my samples.db": STORES,
}


@pytest.mark.parametrize("text", GOOD)
def test_a_good_url_has_no_faults(text):
    assert told(text, GOOD[text]) == []
    assert urls.parse(text, GOOD[text]).scheme == text.partition(":")[0]


BAD = [
    ("tpc://h", LINKS, "did you mean 'tcp'?"),
    ("tcp://a..b:5020", LINKS, "wanted a host name"),
    ("tcp://10.0.0..5", LINKS, "wanted a host name"),
    ("tcp://10.0.0.500", LINKS, "wanted a host name"),
    (f"tcp://{'a' * 64}", LINKS, "wanted a host name"),
    (f"tcp://{'a.' * 127}example", LINKS, "wanted a host name"),
    ("tcp://a b", LINKS, "wanted a host name"),
    ("tcp://-a", LINKS, "wanted a host name"),
    ("tcp://[10.0.0.5:502", LINKS, "wanted tcp://host:502"),
    ("tcp:h:502", LINKS, "wanted tcp://host:502"),
    ("tcp://h:0", LINKS, "wanted a port from 1 to 65535"),
    ("tcp://h:99999", LINKS, "wanted a port from 1 to 65535"),
    ("tcp://h:" + "9" * 5000, LINKS, "wanted a port from 1 to 65535"),
    ("tcp://h:²", LINKS, "wanted a port from 1 to 65535"),
    ("tcp://h/x", LINKS, "and nothing behind it"),
    ("tcp://h#x", LINKS, "wanted nothing behind a '#'"),
    ("tcp://h?x=1", LINKS, "unknown key 'x'"),
    ("tcp://u:p@h", LINKS, "wanted no user or password in a URL: somewhere else"),
    ("tcp://@h", LINKS, "wanted no user or password in a URL"),
    ("rtu:dev", LINKS, "wanted rtu:///dev/ttyUSB0"),
    ("rtu://dev/ttyUSB0", LINKS, "wanted rtu:///dev/ttyUSB0"),
    ("rtu:///dev/", LINKS, "wanted rtu:///dev/ttyUSB0"),
    ("rtu:///dev/x%00", LINKS, "wanted no control characters"),
    ("rtu:///dev/x?baudrat=1", LINKS, "unknown key 'baudrat', did you mean 'baudrate'?"),
    ("rtu:///dev/x?parity=E&parity=N", LINKS, "parity: given 2 times, wanted one"),
    ("mqtt://a..b:1883", BROKERS, "wanted a host name"),
    ("mqtt://h:0", BROKERS, "wanted a port from 1 to 65535"),
    ("mqtt://h/path", BROKERS, "and nothing behind it"),
    ("ws://h/mqtt?token=secret", BROKERS, "unknown key 'token'"),
    ("mqtts://user:p/w@h", BROKERS, "got 'mqtts://***@h', wanted no user or password"),
    ("influx2://h:8086", STORES, "no bucket, wanted influx2://host:8086?org=o&bucket=b"),
    ("influx2://h:abc?bucket=b", STORES, "wanted a port from 1 to 65535"),
    ("influx2://h?bucket=b&token=secret", STORES, "unknown key 'token'"),
    ("influx1://h", STORES, "wanted influx1://host:8086/database"),
    ("influx1://h/db?user=secret", STORES, "unknown key 'user'"),
    ("influx1://u:p/w@h/db", STORES, "got 'influx1://***@h/db', wanted no user or password"),
    ("sqlite://", STORES, "wanted sqlite:///path/to/file"),
    ("sqlite:///", STORES, "wanted sqlite:///path/to/file"),
    ("sqlite://x.db", STORES, "wanted sqlite:///path/to/file"),
]


@pytest.mark.parametrize(("text", "forms", "wanted"), BAD)
def test_a_url_that_cannot_be_meant_is_one_line_without_secrets(text, forms, wanted):
    (line,) = told(text, forms)
    assert wanted in line
    assert "secret" not in line
    assert urls.parse(text, forms) is None


def test_every_fault_of_a_url_is_told():
    assert len(told("tcp://a..b:0/x?y=1#z", LINKS)) == 5


def test_superfluous_slashes_are_no_other_path():
    paths = {urls.parse(f"rtu:///dev{text}", LINKS).path for text in ("/x", "//x", "/./x", "/y/../x")}
    assert paths == {"/dev/x"}
    assert urls.parse("rtu:////dev/x", LINKS).path == "/dev/x"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:0", ("::1", 0)),
        ("h:²", None),
        ("h:" + "9" * 5000, None),
        ("h:65536", None),
        ("a..b:80", None),
        (":80", None),
        ("x", None),
    ],
)
def test_a_listening_address_is_host_and_port(text, wanted):
    assert urls.listening(text) == wanted
