"""Every error at once, one line each, with file, place, what was found, what is wanted."""

import random
import tomllib

import pytest

from gateway.model import tables
from gateway.model.build import PASSWORD_ENV
from gateway.model.config import ConfigError, check, load_console, load_gateway, load_ingest, state_dir

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
    "broker.example": ("u:pw@broker.example", ["mqtt: url: 'mqtts://***@broker.example:8883' holds a user or password"]),
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
        (b"link = 3\n", "link: got 3, wanted a valid list"),
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
        assert all("\n" not in line for line in told)
