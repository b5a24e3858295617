"""Every error at once, one line each, with file, place, what was found, what is wanted."""

import random
import tomllib

import pytest

from gateway.model import tables
from gateway.model.build import PASSWORD_ENV
from gateway.model.config import ConfigError, check, load_console, load_gateway, load_ingest, state_dir
from tests import certificates

GOOD = """
[gateway]
id = "ps1-gw1"
corridor = "link43"
site = "ps1"

[mqtt]
url = "mqtts://broker.example:8883"

[[link]]
name = "skid-a"
url = "tcp://10.0.0.5:502"

[[link]]
name = "bus0"
url = "rtu:///dev/ttyUSB0?baudrate=19200&parity=E&stopbits=2"
turnaround_s = 0.05

[[device]]
name = "ft-101"
link = "skid-a"
unit = 1
profile = "endresshauser_proline"
period_s = 2.0
asset = "meter-run-1"
line = "pipe-a"
kp_m = 132400
tags = ["mass_flow", "temperature"]

  [device.tag.mass_flow]
  high = 250.0
  low = 10.0
  deadband = 2.5
  on_delay_s = 15
  priority = 2
  unit = "kg/s"
  period_s = 1.0
  detect = ["limits", "rate"]
  rate = 5.0

[[device]]
name = "meter-7"
link = "bus0"
unit = 7

  [[device.point]]
  name = "flow_mass"
  function = "holding"
  address = 0x0106
  type = "float32"
  word_order = "little"
  scale = 0.001
  unit = "kg/s"
  range = [0, 400]
  sentinels = [0x7fc00000]
"""


def written(tmp_path, text, name="gateway.toml"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def errors(tmp_path, text):
    path = written(tmp_path, text)
    lines = check(path)
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in lines), lines
    return [line.removeprefix(f"{path}: ") for line in lines]


def test_a_good_file_says_what_it_means(tmp_path):
    spec = load_gateway(written(tmp_path, GOOD))
    assert (spec.id, spec.corridor, spec.site) == ("ps1-gw1", "link43", "ps1")
    assert spec.mqtt.username == "ps1-gw1"
    assert (spec.links[0].transport, spec.links[0].host, spec.links[0].port) == ("tcp", "10.0.0.5", 502)
    assert spec.links[1].path == "/dev/ttyUSB0"
    assert spec.links[1].serial.bits_per_character == 1 + 8 + 1 + 2
    flow, temperature = spec.devices[0].tags
    assert (flow.name, flow.limits[1:3], flow.deadband, flow.on_delay_s, flow.priority) == (
        "mass_flow",
        (10, 250),
        2.5,
        15,
        2,
    )
    assert flow.point.unit == "kg/s"
    assert (flow.period_s, temperature.period_s) == (1.0, 2.0)
    assert (flow.detect, flow.rate) == (("limits", "rate"), 5.0)
    point = spec.devices[1].tags[0].point
    assert (point.address, point.type, point.word_order, point.sentinels) == (0x106, "float32", "little", (0x7FC00000,))
    assert spec.devices[0].measurement == "flow_meter"
    assert spec.devices[1].measurement == "meter"


MISTAKES = {
    'id = "ps1-gw1"': ('idd = "ps1-gw1"', ["gateway: idd: unknown key, did you mean 'id'?", "gateway: id: is missing"]),
    'site = "ps1"': ('site = "ps 1"', ["gateway: site: got 'ps 1', wanted letters"]),
    "mqtts://": ("http://", ["mqtt: url: got 'http://broker.example:8883', wanted mqtt://"]),
    "broker.example": ("u:pw@broker.example", ["mqtt: url: got 'mqtts://***@broker.example:8883', wanted no user or password in a URL: use username and password_file"]),
    "tcp://10.0.0.5:502": ("tpc://10.0.0.5:502", ["link 'skid-a': url: got 'tpc://10.0.0.5:502', wanted", "did you mean 'tcp'"]),
    "tcp://10.0.0.5": ("tcp://[10.0.0.5", ["link 'skid-a': url: got 'tcp://[10.0.0.5:502', wanted"]),
    "tcp://10": ("tcp://u:p@10", ["link 'skid-a': url: got 'tcp://***@10.0.0.5:502'"]),
    "parity=E": ("parity=X", ["link 'bus0': url: parity: got 'X', wanted N or E or O"]),
    "turnaround_s = 0.05": ("turnaround_s = -1", ["link 'bus0': turnaround_s: got -1, wanted greater than or equal to 0"]),
    'link = "skid-a"': ('link = "skid-b"', ["device 'ft-101': link: no link 'skid-b'", "did you mean 'skid-a'?"]),
    "unit = 1\n": ("unit = 300\n", ["device 'ft-101': unit: got 300, wanted less than or equal to 255"]),
    '"endresshauser_proline"': ('"endress"', ["device 'ft-101': profile: no profile 'endress'"]),
    '"mass_flow", "temperature"': ('"mass_flow", "temprature"', ["device 'ft-101': tags: profile", "did you mean 'temperature'?"]),
    "[device.tag.mass_flow]": ("[device.tag.masflow]", ["no point 'masflow', did you mean 'mass_flow'?"]),
    "high = 250.0": ("hihg = 250.0", ["device 'ft-101': tag 'mass_flow': hihg: unknown key, did you mean 'high'?"]),
    "low = 10.0": ("low = 300.0", ["device 'ft-101': tag 'mass_flow': low = 300.0 must be below high = 250.0"]),
    '["limits", "rate"]': ('["limits", "rat"]', ["tag 'mass_flow': detect", "did you mean 'rate'?"]),
    'type = "float32"': ('type = "flaot32"', ["device 'meter-7': point 'flow_mass': type: unknown type 'flaot32'", "did you mean 'float32'?"]),
    'function = "holding"': ('function = "hodling"', ["point 'flow_mass': function: got 'hodling'", "did you mean 'holding'?"]),
    "address = 0x0106": ("address = 70000", ["point 'flow_mass': address: got 70000, wanted less than or equal to 65535"]),
    "range = [0, 400]": ("range = [400, 0]", ["range [400.0, 0.0]: the first number must be below the second"]),
    "unit = 7": ("unit = 7\nprofile = 'eastron_sdm120'", ["device 'meter-7': has both 'profile' and points of its own"]),
    'name = "meter-7"': ('name = "ft-101"', ["device 'ft-101': name is given twice"]),
    'link = "bus0"\nunit = 7': ('link = "skid-a"\nunit = 1', ["unit 1 on link 'skid-a' belongs to device 'ft-101' already"]),
}  # fmt: skip


@pytest.mark.parametrize("found", MISTAKES)
def test_a_mistake_is_told_with_place_and_fix(tmp_path, found):
    wrong, wanted = MISTAKES[found]
    assert found in GOOD
    told = errors(tmp_path, GOOD.replace(found, wrong, 1))
    assert told
    for text in wanted:
        assert any(text in line for line in told), told


OWN = GOOD[GOOD.index("  [[device.point]]") :]

ALONE = {
    'id = "ps1-gw1"': ('id = "ps1\\ngw1"', r"gateway: id: got 'ps1\ngw1', wanted letters"),
    'corridor = "link43"': ("corridor = 1979-05-27", "gateway: corridor: got 1979-05-27, wanted a text in quotes"),
    "[mqtt]\n": ('[mqtt]\npassword_file = "a\\u0000b"\n', r"mqtt: password_file: got 'a\x00b', wanted no control"),
    "mqtts://broker": ("mqtts://u:p/w@broker", "mqtt: url: got 'mqtts://***@broker.example:8883', wanted no user"),
    'url = "mqtts://broker.example:8883"': ('urls = "mqtt://u:secret@h"', "mqtt: urls: got 'mqtt://***@h', wanted a list"),
    "tcp://10.0.0.5:502": ("tcp://a..b:5020", "link 'skid-a': url: got 'tcp://a..b:5020', wanted a host name"),
    "10.0.0.5:502": ("u:secret@10.0.0.5:99999", "link 'skid-a': url: got 'tcp://***@10.0.0.5:99999', wanted no user"),
    "baudrate=19200": ("baudrate=²", "link 'bus0': url: baudrate: got '²', wanted 300 to 4000000"),
    "stopbits=2": ("bytesize=7", "link 'bus0': url: bytesize: got '7', wanted 8"),
    "unit = 1\n": ("unit = true\n", "device 'ft-101': unit: got true, wanted a whole number"),
    "period_s = 2.0": ("period_s = 1e12", "device 'ft-101': period_s: got 1000000000000.0, wanted less than or equal to 86400"),
    "kp_m = 132400": (f"kp_m = 0x{'f' * 5000}", "device 'ft-101': kp_m: got a number of 20000 bits, wanted less"),
    'asset = "meter-run-1"': ('measurement = "x"', "device 'ft-101': measurement: got 'x', wanted none beside 'profile'"),
    'line = "pipe-a"': ('"a\\nb" = 1', r"device 'ft-101': a\nb: unknown key"),
    '"temperature"]': ('"a\\nb"]', r"tags: profile 'endresshauser_proline' has no point 'a\nb', wanted one of"),
    "deadband = 2.5": ("deadband = 241", "tag 'mass_flow': deadband: got 241.0, wanted at most 240.0, from low to high"),
    "on_delay_s = 15": ("on_delay_s = 1e10", "tag 'mass_flow': on_delay_s: got 10000000000.0, wanted less than or equal to 86400"),
    "period_s = 1.0": ("off_delay_s = inf", "tag 'mass_flow': off_delay_s: got inf, wanted a finite number"),
    "high = 250.0": ("high = nan", "tag 'mass_flow': high: got nan, wanted a finite number"),
    'detect = ["limits", "rate"]': ('detect = ["frozen", "limits"]', "tag 'mass_flow': rate is set, wanted 'rate' in detect as well"),
    "low = 10.0": ("low = true", "tag 'mass_flow': low: got true, wanted a number"),
    '  unit = "kg/s"\n  period_s': ('  unit = "°C"\n  period_s', "tag 'mass_flow': unit: got '°C', wanted ASCII"),
    'name = "flow_mass"': ('name = "time"', "device 'meter-7': point 'time': name: got 'time', wanted another name"),
    "address = 0x0106": ('address = "10"', "point 'flow_mass': address: got '10', wanted a whole number"),
    'type = "float32"': ('type = "a\\nb"', r"point 'flow_mass': type: unknown type 'a\nb', wanted bool"),
    "range = [0, 400]": ("range = [nan, 1]", "point 'flow_mass': range #1: got nan, wanted a finite number"),
    "sentinels = [0x7fc00000]": ("sentinels = [0x100000000]", "point 'flow_mass': sentinels: 4294967296 is no raw float32, wanted 0 to 4294967295"),
    OWN: ("point = 3", "device 'meter-7': point: got 3, wanted a list"),
}  # fmt: skip


@pytest.mark.parametrize("found", ALONE)
def test_a_mistake_is_one_line_and_no_other(tmp_path, found):
    wrong, wanted = ALONE[found]
    assert found in GOOD
    (line,) = errors(tmp_path, GOOD.replace(found, wrong, 1))
    assert wanted in line
    assert "secret" not in line
    assert line.isprintable()


ADDED = {
    "[spool]\nmax_bytes = 1e9": "spool: max_bytes: got 1000000000.0, wanted a whole number",
    '[spool]\npath = "a\\u0000b"': r"spool: path: got 'a\x00b', wanted no control characters",
    "[clock]\nhold_s = inf": "clock: hold_s: got inf, wanted a finite number",
    '[metrics]\nlisten = "h:²"': "metrics: listen: got 'h:²', wanted host:port",
    '[[link]]\nname = "b"\nurl = "tls://10.0.0.6"\nca_file = "/"': "link 'b': ca_file: /: is not a file",
    '[[link]]\nname = "b"\nurl = "rtu:///dev//ttyUSB0"': "link 'b': url: link 'bus0' has this endpoint already",
    '[[device]]\nname = "b"\nlink = "bus0"\nprofile = "eastron_sdm120"\ntags = []': "device 'b': tags: is empty",
    '[[device]]\nname = "b"\nlink = "bus0"\nprofile = "eastron_sdm120"\ntags = 3': "device 'b': tags: got 3, wanted a list",
    '[[device]]\nname = "b"\nlink = "bus0"\nprofile = "eastron_sdm120"\ntag = 3': "device 'b': tag: got 3, wanted a table",
    '[[device]]\nname = "b"\nlink = "bus0"\nprofile = 3': "device 'b': profile: got 3, wanted a text in quotes",
    '[[device]]\nname = "b"\nprofile = "eastron_sdm120"': "device 'b': link: is missing",
    '[[device]]\nlink = "bus0"\nprofile = "eastron_sdm120"': "device #3: name: is missing",
    '[[device]]\nname = "command"\nlink = "bus0"\nprofile = "eastron_sdm120"': "device 'command': this name is the topic of commands",
    '[[device]]\nname = "b"\nlink = "bus0"\n[[device.point]]\nname = "s"\nfunction = "input"\naddress = 1\ntype = "string16"':
        "device 'b': this device has only texts, wanted at least one point with a number",
}  # fmt: skip


@pytest.mark.parametrize("text", ADDED)
def test_a_mistake_in_a_further_table_is_found(tmp_path, text):
    (line,) = errors(tmp_path, f"{GOOD}\n{text}\n")
    assert ADDED[text] in line


TEXTS = """
  [[device.point]]
  name = "serial"
  function = "holding"
  address = 0
  type = "string16"
"""


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        (
            'tags = ["flow_mass", "serial"]',
            "tags: 'serial' is a text and read at the start, wanted points with numbers",
        ),
        ("tag.serial.high = 3", "tag 'serial': 'serial' is a text and read at the start, wanted points with numbers"),
        ('tags = ["flow_mass", "flow_mass"]', "tags: names a point twice"),
    ],
)
def test_texts_are_no_tags(tmp_path, more, wanted):
    assert errors(tmp_path, GOOD + TEXTS) == []
    told = errors(tmp_path, GOOD.replace("unit = 7\n", f"unit = 7\n{more}\n") + TEXTS)
    assert told == [f"device 'meter-7': {wanted}"]


TOGETHER = [  # replacements, and the lines they make: all of them, and no false one that follows from another
    (
        {'"ps1-gw1"': '"g 1"', "[mqtt]\n": '[mqtt]\npassword_file = "nope"\n', "[[link]]": '[metrics]\nlisten = "x"\n[[link]]'},
        ["gateway: id:", "metrics: listen:", "mqtt: password_file: nope: No such file"],
    ),
    ({"low = 10.0": "low = 300.0", "priority = 2": "priority = 9"}, ["priority: got 9", "low = 300.0 must be below high"]),
    ({"low = 10.0": "low = 300.0", "high = 250.0": "high = true"}, ["high: got true"]),
    (
        {"scale = 0.001": "scale = 0\n  bit = 3", "[0, 400]": "[5, 1]"},
        ["scale 0 makes every value 0", "range [5.0, 1.0]: the first number must be below", "'bit' goes with type bool"],
    ),
    (
        {"mqtts://": "mqtts://u:p@", "[mqtt]\n": '[mqtt]\npassword_file = "nope"\nkey_file = "gone"\n'},
        ["mqtt: url: got", "mqtt: cert_file and key_file go together", "password_file: nope", "key_file: gone"],
    ),
    ({"unit = 1\n": "unit = 300\n", 'link = "bus0"\nunit = 7': 'link = "skid-a"\nunit = 1'}, ["device 'ft-101': unit: got 300"]),
    ({'name = "bus0"\n': ""}, ["link #2: name: is missing"]),
    ({'url = "tcp://10.0.0.5:502"': "url = 3", 'name = "bus0"': 'name = "skid-a"'}, ["link 'skid-a': url: got 3", "link 'skid-a': name is given twice", "no link 'bus0', wanted one of skid-a"]),
    (
        {"period_s = 2.0": "period = 3", "priority = 2": "priority = 9", "low = 10.0": "low = 300", '"temperature"]': '"temprature"]', 'name = "meter-7"': 'name = "ft-101"'},
        ["period: unknown key", "priority: got 9", "low = 300.0 must be below", "name is given twice", "did you mean 'temperature'?"],
    ),
    ({"address = 0x0106": "address = 70000", "unit = 7\n": 'unit = 7\ntags = ["flow"]\n'}, ["address: got 70000", "no point 'flow'"]),
    ({'type = "float32"': 'type = "flaot32"', "unit = 7\n": 'unit = 7\ntags = ["flow"]\n'}, ["type: unknown type 'flaot32'"]),
    ({'profile = "endresshauser_proline"\n': "profile = 3\n"}, ["profile: got 3"]),
    ({"range = [0, 400]": 'rate = "flw"\n  rate_s = 1'}, ["rate goes with kind", "point 'flow_mass': rate: no point 'flw'"]),
    ({"range = [0, 400]": 'rate = "flw"\n  rate_s = 1\n  kind = "count"'}, ["kind: got 'count'"]),
    ({OWN: OWN + OWN}, ["point 'flow_mass': given twice (points 1 and 2)"]),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "wanted"), TOGETHER)
def test_every_error_is_told_beside_the_others_and_makes_no_false_one(tmp_path, changes, wanted):
    text = GOOD
    for found, wrong in changes.items():
        assert found in text
        text = text.replace(found, wrong, 1)
    told = errors(tmp_path, text)
    assert len(told) == len(wanted), told
    for part in wanted:
        assert sum(part in line for line in told) == 1, (part, told)


def test_what_is_right_beside_an_error_can_still_be_planned(tmp_path):
    def more(spec):
        seen.append(([link.name for link in spec.links], [device.name for device in spec.devices]))
        yield "the plan's word"

    seen = []
    path = written(tmp_path, GOOD.replace('"ps1-gw1"', '"ps 1"').replace("unit = 7\n", "unit = 700\n"))
    told = check(path, more)
    assert (len(told), told[-1]) == (3, f"{path}: the plan's word")
    assert len(check(written(tmp_path, GOOD.replace("tcp://10.0.0.5", "tcp://")), more)) == 2
    assert seen == [(["skid-a", "bus0"], ["ft-101"]), (["bus0"], ["meter-7"])]


def test_whole_numbers_are_numbers(tmp_path):
    spec = load_gateway(written(tmp_path, GOOD.replace("period_s = 2.0", "period_s = 2")))
    assert spec.devices[0].tags[1].period_s == 2.0


def test_a_link_shows_a_certificate_with_a_key_that_only_we_may_read(tmp_path):
    cert, key = certificates.authority(tmp_path / "ca").issue("gw1")
    text = GOOD.replace(
        'url = "tcp://10.0.0.5:502"', f'url = "tls://10.0.0.5"\ncert_file = "{cert}"\nkey_file = "{key}"'
    )
    assert load_gateway(written(tmp_path, text)).links[0].key_file == key
    alone = text.replace(f'cert_file = "{cert}"', "")
    assert errors(tmp_path, alone) == ["link 'skid-a': cert_file and key_file go together"]
    key.chmod(0o644)
    assert errors(tmp_path, text) == [
        f"link 'skid-a': key_file: {key}: others may read it (mode 0644), wanted 0600 or 0400"
    ]
    key.chmod(0o600)
    key.write_text("no key")
    assert errors(tmp_path, text) == [
        f"link 'skid-a': key_file: {key}: holds no private key, wanted PEM without a passphrase"
    ]


STORE = '[mqtt]\nurl = "mqtt://h"\n[ingest]\nid = "i1"\ncorridor = "c"\n[store]\nurl = "{url}"\n'


@pytest.mark.parametrize(
    "url", ["influx2://h:8086", "influx1://h", "sqlite://", "sqlite:///", "sqlite:///a%00b", "sqlite:///tmp"]
)
def test_a_store_that_could_not_be_opened_is_refused(tmp_path, url):
    (line,) = errors(tmp_path, STORE.format(url=url))
    assert line.startswith("store: url: ")


def test_every_error_of_an_ingest_at_once(tmp_path):
    (tmp_path / "token").write_text("t0k")
    (tmp_path / "token").chmod(0o644)
    text = STORE.format(url="foo://h").replace('"i1"', '"i 1"').replace("[ingest]", 'password_file = "nope"\n[ingest]')
    told = errors(tmp_path, text + 'token_file = "token"\n')
    assert [line.split(":")[1] for line in told] == [" id", " url", " password_file", " token_file"]


def test_every_error_of_a_console_at_once(tmp_path):
    told = errors(tmp_path, '[mqtt]\nurl = 3\n[console]\nlisten = "127.0.0.1:²"\n[store]\n')
    assert [line.split(", ")[0] for line in told] == [
        "mqtt: url: got 3",
        "store: url: is missing",
        "console: listen: got '127.0.0.1:²'",
    ]


def test_ten_mistakes_are_ten_lines(tmp_path):
    text = GOOD
    picked = [
        'site = "ps1"',
        "parity=E",
        'link = "skid-a"',
        "high = 250.0",
        'type = "float32"',
        '"endresshauser_proline"',
    ]
    for found in picked:
        text = text.replace(found, MISTAKES[found][0], 1)
    told = errors(tmp_path, text)
    assert len(told) == len(set(told)) >= len(picked)
    for found in picked:
        assert any(MISTAKES[found][1][0] in line for line in told), (found, told)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"\x00\xff\x81\x99", "is not text"),
        (GOOD[:200].encode() + b"\n[mqtt", "is not TOML"),
        (GOOD.replace("[[link]]", "[link]", 1).encode(), "is not TOML"),
        (b"link = 3\n", "link: got 3, wanted a list"),
        (b"a = 1\n", "is missing"),
    ],
)
def test_a_broken_file_is_clear_lines_and_no_traceback(tmp_path, content, wanted):
    path = written(tmp_path, content)
    lines = check(path)
    assert lines
    assert any(wanted in line for line in lines)
    assert all("\n" not in line and "Traceback" not in line for line in lines)


def test_an_absent_file_is_one_line(tmp_path):
    assert check(tmp_path / "nope.toml") == [f"{tmp_path / 'nope.toml'}: cannot be read: No such file or directory"]


def test_two_links_of_one_endpoint_are_refused(tmp_path):
    text = GOOD + '\n[[link]]\nname = "again"\nurl = "tcp://10.0.0.5:502"\n'
    assert any("link 'skid-a' has this endpoint already" in line for line in errors(tmp_path, text))


def test_secrets_come_from_files_that_only_we_may_read(tmp_path, monkeypatch):
    secret = tmp_path / "pw"
    secret.write_text("tide-mark\n")
    secret.chmod(0o644)
    text = GOOD.replace("[mqtt]\n", '[mqtt]\npassword_file = "pw"\n')
    assert any("pw: others may read it (mode 0644), wanted 0600" in line for line in errors(tmp_path, text))
    secret.chmod(0o600)
    spec = load_gateway(written(tmp_path, text))
    assert spec.mqtt.password == "tide-mark"
    assert "tide-mark" not in repr(spec)
    monkeypatch.setenv(PASSWORD_ENV, "from-env")
    assert load_gateway(written(tmp_path, GOOD)).mqtt.password == "from-env"


def test_a_password_in_the_file_is_an_unknown_key_and_never_shown(tmp_path):
    told = errors(tmp_path, GOOD.replace("[mqtt]\n", '[mqtt]\npassword = "tide-mark"\n'))
    assert any("mqtt: password: unknown key" in line for line in told)
    assert not any("tide-mark" in line for line in told)


def test_own_profiles_stand_beside_the_configuration(tmp_path):
    folder = tmp_path / "profiles"
    folder.mkdir()
    (folder / "mine.toml").write_text(
        'vendor = "V"\nmodel = "M"\nsource = "bench"\ngrade = "C"\nmeasurement = "mine"\n'
        'points = [{name = "a", function = "input", address = 0, type = "uint16"}]\n'
    )
    text = (
        GOOD.replace('"endresshauser_proline"', '"mine"')
        .replace('tags = ["mass_flow", "temperature"]', "")
        .split("  [device.tag")[0]
    )
    spec = load_gateway(written(tmp_path, text))
    assert (spec.devices[0].measurement, spec.devices[0].tags[0].name) == ("mine", "a")
    (folder / "mine.toml").write_text('vendor = "V"\nmodle = "M"\n')
    assert any("mine.toml: modle: unknown key, did you mean 'model'?" in line for line in errors(tmp_path, text))


def test_ingest_and_console_are_checked_alike(tmp_path):
    mqtt = '[mqtt]\nurl = "mqtt://h"\n'
    ingest = written(
        tmp_path, mqtt + '[ingest]\nid = "i1"\ncorridor = "c"\n[store]\nurl = "sqlite:///x.db"\n', "ingest.toml"
    )
    assert load_ingest(ingest).share == "ingest"
    console = written(tmp_path, mqtt + '[console]\nlisten = "127.0.0.1:8080"\n', "console.toml")
    assert load_console(console).listen == ("127.0.0.1", 8080)
    assert check(ingest) == check(console) == []
    ingest.write_text(mqtt + '[ingest]\nid = "i1"\ncorridr = "c"\n[store]\nurl = "mysql://u:p@h/x"\n')
    told = "\n".join(check(ingest))
    assert "ingest: corridr: unknown key, did you mean 'corridor'?" in told
    with pytest.raises(ConfigError):
        load_ingest(ingest)


def test_state_goes_where_the_system_says(tmp_path, monkeypatch):
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_dir(None, "gw1") == tmp_path / "corridor" / "gw1"
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/x")
    assert str(state_dir(None, "gw1")) == "/var/lib/x"
    assert state_dir(tmp_path, "gw1") == tmp_path


def test_the_schema_for_editors_is_made_of_the_same_models():
    whole = tables.SCHEMAS["gateway"].model_json_schema()
    assert set(whole["properties"]) == {"gateway", "mqtt", "spool", "clock", "metrics", "link", "device"}
    assert tomllib.loads(GOOD).keys() <= whole["properties"].keys()


def test_no_broken_file_ends_in_a_traceback(tmp_path):
    rng = random.Random(7)
    lines = GOOD.splitlines()
    wild = [
        "[]",
        "{}",
        '"x"',
        "-1",
        "1.5",
        "true",
        "[[1]]",
        "{a=1}",
        '"tcp://:99999"',
        '"rtu://"',
        "inf",
        '""',
        "1979-05-27",
        "nan",
        "1e300",
        '"a\\u001bb\\nc"',
        '"rtu:///x?baudrate=²"',
        '"h:²"',
    ]
    for _ in range(300):
        changed = lines[: rng.randrange(len(lines))] if rng.random() < 0.2 else list(lines)
        for _ in range(rng.randint(1, 3)):
            if changed:
                i = rng.randrange(len(changed))
                key, is_pair, _ = changed[i].partition("=")
                changed[i] = (
                    f"{key}= {rng.choice(wild)}" if is_pair else rng.choice(["[link]", "[[gateway]]", "x=1", ""])
                )
        told = check(written(tmp_path, "\n".join(changed)))
        assert all(line.isprintable() for line in told)
