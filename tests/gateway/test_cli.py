"""The command line as a user types it: exit codes, clear lines, tables and JSON."""

import argparse
import asyncio
import contextlib
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest

from drivers import profile
from drivers.points import Hole
from drivers.sim.faults import KINDS
from gateway import cli
from gateway.acquire.memory import Learnt, Memory
from gateway.commands import services, words
from gateway.model.config import load_gateway
from gateway.spool import verify as verify_module
from gateway.spool.verify import verify
from tests import certificates
from tests.gateway.model.test_config import GOOD

CSV = "name,function,address,type,word_order,scale,offset,unit,description\na,3,0,uint16,big,1,0,V,fine\n"
MQTT = '[mqtt]\nurl = "mqtt://127.0.0.1:1"\n'


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_text(GOOD)
    return path


def run(*arguments):
    """Run `corridor` as a process; returns (exit code, standard output, standard error)."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@contextlib.contextmanager
def started(*arguments, **settings):
    """Start `corridor` without PYTHONUNBUFFERED, which would hide what happens when output is flushed at the end."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "gateway.cli", *map(str, arguments)]
    with subprocess.Popen(command, env={**environment, **settings.pop("env", {})}, **settings) as child:
        try:
            yield child
        finally:
            child.kill()


def test_check_is_silent_about_a_good_file(config):
    assert run("check", config) == (0, "", "")


@pytest.mark.parametrize("content", [b"", b"\x00\x81\xff", b"[gateway\n", GOOD.replace("unit = 1", "unt = 1").encode()])
@pytest.mark.parametrize("command", ["check", "run", "plan", "sim"])
def test_a_wrong_file_is_exit_1_and_lines_without_a_traceback(tmp_path, capsys, command, content):
    path = tmp_path / "gateway.toml"
    path.write_bytes(content)
    code = cli.main([command, str(path)])
    out, err = capsys.readouterr()
    assert code == 1
    assert out == ""
    assert err.count("\n") == len(err.splitlines()) >= 1
    assert all(line.startswith(str(path)) for line in err.splitlines())


def test_a_thread_that_hangs_in_a_dial_holds_up_no_end():
    released = threading.Event()

    async def main():
        asyncio.get_running_loop().run_in_executor(None, released.wait)
        return 7

    try:
        assert services._finish(main()) == 7
        assert not released.is_set()
    finally:
        released.set()


def test_a_bus_that_cannot_work_is_refused_by_check_and_run(tmp_path):
    path = tmp_path / "gateway.toml"
    text = GOOD.split("[[device]]")[0]
    for unit in range(1, 9):
        text += f'[[device]]\nname = "m{unit}"\nlink = "bus0"\nunit = {unit}\nprofile = "eastron_sdm630"\n'
    path.write_text(text)
    for command in ("check", "run", "plan"):
        code, _, err = run(command, path)
        assert code == 1
        assert "link 'bus0': needs" in err
    path.write_text(text.replace('id = "ps1-gw1"', 'id = "ps 1"'))
    _, _, err = run("check", path)
    first, second = err.splitlines()
    assert "gateway: id" in first
    assert "link 'bus0': needs" in second


def test_plan_prints_a_table_and_json(config, capsys):
    assert cli.main(["plan", str(config), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"links", "requests", "bytes_per_day", "spool_days", "errors"} <= found.keys()
    assert cli.main(["plan", str(config)]) == 0
    assert "skid-a" in capsys.readouterr().out


def test_plan_says_what_belongs_into_a_scan_list(tmp_path, capsys):
    path = tmp_path / "gateway.toml"
    tags = '"mass_flow", "temperature", "totalizer1", "system_condition", "unit_length"'
    path.write_text(
        f'[gateway]\nid = "g"\ncorridor = "c"\nsite = "s"\n{MQTT}[[link]]\nname = "bus0"\nurl = "rtu:///dev/ttyUSB0"\n'
        f'[[device]]\nname = "ft-101"\nlink = "bus0"\nprofile = "endresshauser_proline"\ntags = [{tags}]\n'
    )
    assert cli.main(["plan", str(path), "--state", str(tmp_path)]) == 0
    wanted = "ft-101: with 2007 2017 2125 2610 6859 in its scan list: 3 reads instead of 5, "
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ft-101: ")]
    assert line.startswith(wanted)
    assert line.removeprefix(wanted) == "0.16 s instead of 0.22 s"


def taught(config, state):
    """Let both devices of the configuration have refused something."""
    memory = Memory(load_gateway(config), state)
    memory.keep("ft-101", Learnt((Hole("holding", 2006, 2),), 60, None, 0.031))
    memory.keep("meter-7", Learnt((Hole("holding", 4, 1),)))
    state.mkdir()
    memory.commit()


def test_plan_uses_and_shows_what_was_learnt(config, tmp_path, capsys):
    taught(config, tmp_path / "state")
    assert cli.main(["plan", str(config), "--state", str(tmp_path / "state"), "--json"]) == 0
    learnt = json.loads(capsys.readouterr().out)["learnt"]
    assert [one["device"] for one in learnt] == ["ft-101", "meter-7"]
    assert learnt[0]["refused"] == [{"function": "holding", "start": 2006, "count": 2, "tags": ["mass_flow"]}]
    assert cli.main(["plan", str(config), "--state", str(tmp_path / "state")]) == 0
    said = capsys.readouterr().out
    assert "ft-101 has taught: it refuses holding 2006 to 2007 (mass_flow); its largest read is of 60" in said
    assert cli.main(["plan", str(config), "--state", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["learnt"] == []


def test_a_profile_is_exported_with_what_was_learnt(config, tmp_path, capsys):
    state, out = tmp_path / "state", tmp_path / "profiles" / "ours.toml"
    taught(config, state)
    command = ["profile", "export", str(config), "ft-101", "--state", str(state), "--out", str(out)]
    assert cli.main(command) == 0
    found, shipped = profile.load(out), profile.find("endresshauser_proline")
    assert (found.holes, found.max_registers) == ((Hole("holding", 2006, 2),), 60)
    assert found.points == shipped.points
    assert cli.main(["profile", "lint", str(out)]) == 0
    assert "point 'mass_flow': lies in a hole and is never read" in capsys.readouterr().out
    config.write_text(config.read_text().replace('"endresshauser_proline"', '"ours"'))
    assert cli.main(["plan", str(config), "--json", "--state", str(tmp_path)]) == 0
    asked = [r for r in json.loads(capsys.readouterr().out)["requests"] if r["device"] == "ft-101"]
    assert not [r for r in asked if r["start"] <= 2006 < r["start"] + r["count"]]
    out.write_text("other")
    assert cli.main(["check", str(config)]) == 1
    config.write_text(config.read_text().replace('"ours"', '"endresshauser_proline"'))
    capsys.readouterr()
    assert cli.main(command) == 1
    assert "is there already with other content" in capsys.readouterr().err
    assert cli.main([*command, "--force"]) == 0


def test_a_device_with_points_of_its_own_is_exported_to_standard_output(config, tmp_path, capsys):
    taught(config, tmp_path / "state")
    assert cli.main(["profile", "export", str(config), "meter-7", "--state", str(tmp_path / "state")]) == 0
    (tmp_path / "x.toml").write_text(capsys.readouterr().out)
    found = profile.load(tmp_path / "x.toml")
    assert found.model == "meter-7"
    assert found.holes == (Hole("holding", 4, 1),)


def test_export_names_the_device_that_was_meant(config, tmp_path, capsys):
    assert cli.main(["profile", "export", str(config), "ft-102"]) == 1
    assert "no device 'ft-102', wanted one of ft-101, meter-7; did you mean 'ft-101'?" in capsys.readouterr().err
    assert cli.main(["profile", "export", str(tmp_path / "absent.toml"), "x"]) == 1
    assert cli.main(["profile", "export", str(config), "ft-101", "--out", str(tmp_path / "a b.txt")]) == 1


def test_profile_list_and_show(capsys):
    assert cli.main(["profile", "list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) >= 36
    assert cli.main(["profile", "show", "eastron_sdm120"]) == 0
    assert "voltage" in capsys.readouterr().out
    assert cli.main(["profile", "show", "carlogavazzi_em24_e1"]) == 0
    assert "\nexpects: model_code 1648 to 1653\n" in capsys.readouterr().out
    assert cli.main(["profile", "show", "endresshauser_proline"]) == 0
    assert "\nscan list: holding, 16 from 5000, shown 2 each from 5050\n" in capsys.readouterr().out
    assert cli.main(["profile", "show", "eastron_sdm12"]) == 1
    assert "did you mean 'eastron_sdm120'?" in capsys.readouterr().err


def test_profile_import_says_what_is_wrong_line_by_line(tmp_path, capsys):
    source = tmp_path / "x.csv"
    source.write_text(
        "name,function,address,type,word_order,scale,offset,unit,description\n"
        "a,3,0,uint16,big,1,0,V,fine\n"
        "b,7,1,uint16,big,1,0,V,no such function\n"
        "c,3,x,uint16,big,1,0,V,no such address\n"
        "d,3,2,unt16,big,1,0,V,no such type\n"
    )
    assert cli.main(["profile", "import", str(source), "--out", str(tmp_path / "x.toml")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["line 3", "line 4", "line 5"]
    assert not (tmp_path / "x.toml").exists()
    source.write_text("\n".join(source.read_text().splitlines()[:2]))
    assert cli.main(["profile", "import", str(source), "--out", str(tmp_path / "x.toml"), "--vendor", "V"]) == 0
    assert cli.main(["profile", "lint", str(tmp_path / "x.toml")]) == 0


def test_profile_list_tells_of_a_broken_file_and_lists_the_others(tmp_path, monkeypatch, capsys):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.toml").write_text("points = [")
    monkeypatch.chdir(tmp_path)
    for arguments in (["--json"], []):
        assert cli.main(["profile", "list", *arguments]) == 1
        found = capsys.readouterr()
        assert "eastron_sdm120" in found.out
        (line,) = found.err.splitlines()
        assert line.startswith("profiles/mine.toml: is not TOML")


def test_profile_import_overwrites_only_when_forced(tmp_path, capsys):
    source, out = tmp_path / "x.csv", tmp_path / "x.toml"
    source.write_text(CSV)
    out.write_text("precious")
    assert cli.main(["profile", "import", str(source), "--out", str(out)]) == 1
    assert "is there already with other content" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert cli.main(["profile", "import", str(source), "--out", str(out), "--force"]) == 0
    assert cli.main(["profile", "import", str(source), "--out", str(out)]) == 0  # the same again changes nothing
    assert cli.main(["profile", "show", str(out)]) == 0


@pytest.mark.parametrize("name", ["my meter.csv", "-x.csv", "x" * 65 + ".csv", "ü.csv"])
def test_a_file_name_that_no_configuration_could_say_is_refused_by_import(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(CSV)
    assert cli.main(["profile", "import", f"./{name}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "as in my_meter.toml" in line
    assert not Path("profiles").exists()
    assert cli.main(["profile", "import", f"./{name}", "--out", "-"]) == 0
    assert cli.main(["profile", "import", f"./{name}", "--out", "x.txt"]) == 1
    assert cli.main(["profile", "import", f"./{name}", "--out", "x.toml"]) == 0


def test_import_to_where_nothing_can_be_written_is_a_line(tmp_path, capsys):
    (tmp_path / "x.csv").write_text(CSV)
    (tmp_path / "a.toml").mkdir()
    for out in (tmp_path / "x.csv" / "y.toml", Path("/proc/y.toml"), tmp_path / "a.toml"):
        for force in ([], ["--force"]):
            assert cli.main(["profile", "import", str(tmp_path / "x.csv"), "--out", str(out), *force]) == 1
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"{out}: cannot be written: ") or "is there already" in line


def test_schema_is_json_schema(capsys):
    for kind in ("gateway", "ingest", "console", "profile"):
        assert cli.main(["schema", kind]) == 0
        assert json.loads(capsys.readouterr().out)["type"] == "object"


def test_acl_keeps_a_gateway_in_its_own_tree(config, capsys):
    assert cli.main(["acl", "--broker", "mosquitto", str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "user ps1-gw1" in lines
    base = "corridor/v1/link43/ps1/ps1-gw1/"
    assert all(line.split()[2].startswith(base) for line in lines if line.startswith("topic"))
    assert not any("write" in line and "command" in line for line in lines)


def acl(capsys, *paths):
    """Return exit code, users and error lines of `corridor acl`."""
    code = cli.main(["acl", *map(str, paths)])
    found = capsys.readouterr()
    return code, re.findall(r"^user (.*)$", found.out, re.M), found.err.splitlines()


def test_acl_goes_by_username_then_certificate_then_id(tmp_path, capsys):
    trusted = certificates.authority(tmp_path / "ca")
    cert, key = trusted.issue("my-cn")
    mutual = f'cert_file = "{cert}"\nkey_file = "{key}"\n'
    ingest = '[ingest]\nid = "in-1"\ncorridor = "c"\n[store]\nurl = "sqlite:////x"\n'
    console = tmp_path / "console.toml"
    for settings, users in (
        ("", ["in-1"]),
        ('username = "me"\n', ["me", "me"]),
        (mutual, ["my-cn", "my-cn"]),
        (f'username = "me"\n{mutual}', ["me", "me"]),
    ):
        (tmp_path / "ingest.toml").write_text(MQTT + settings + ingest)
        console.write_text(MQTT + settings + "[console]\n")
        files = [tmp_path / "ingest.toml", *([console] if settings else [])]
        assert acl(capsys, *files) == (0, users, [])


def test_acl_tells_what_is_wrong_with_every_file_and_prints_nothing(config, tmp_path, capsys):
    nameless, other = tmp_path / "console.toml", tmp_path / "no\nuser x.toml"
    nameless.write_text(MQTT + "[console]\n")
    other.write_text(GOOD)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\0\x81")
    unnamed = tmp_path / "cert.toml"
    unnamed.write_text(MQTT + f'cert_file = "{binary}"\nkey_file = "key"\n[console]\n')
    (tmp_path / "key").touch(0o600)
    evil = tmp_path / "evil.toml"
    evil.write_text(GOOD.replace("[mqtt]", '[mqtt]\nusername = "x\\ntopic readwrite #"'))
    files = (config, tmp_path, tmp_path / "nope.toml", binary, nameless, other, unnamed, evil, "/dev/null")
    code, users, lines = acl(capsys, *files)
    assert (code, users) == (1, [])
    assert len(lines) == len(files) - 1
    assert lines[0].startswith(f"{tmp_path}: cannot be read")
    assert lines[1].startswith(f"{tmp_path / 'nope.toml'}: cannot be read")
    assert lines[2].startswith(f"{binary}: is not text")
    assert lines[3] == (f"{nameless}: mqtt: the broker knows it by no name, wanted username, or cert_file and key_file")
    assert "this file name cannot stand in an access list" in lines[4]
    assert lines[5] == f"{unnamed}: mqtt: cert_file: {binary}: holds no certificate, wanted PEM"
    assert lines[6].startswith(f"{evil}: mqtt: username: got 'x\\ntopic readwrite #', wanted no control characters")


def test_ledger_says_where_nothing_is(tmp_path, capsys):
    assert cli.main(["ledger", "--state", str(tmp_path)]) == 1
    assert "no ledger here" in capsys.readouterr().err


def sealed(body):
    """Return the content of a meta file."""
    return b"%08x %s" % (zlib.crc32(body), body)


def test_verify_tells_a_spool_from_any_other_folder_and_reports_all(tmp_path, capsys):
    nope, empty, file, spool = (tmp_path / name for name in ("nope", "empty", "file", "spool"))
    empty.mkdir()
    spool.mkdir()
    file.write_text("")
    (spool / "meta").write_bytes(sealed(b'{"boot": 1}'))
    assert cli.main(["spool", "verify", str(spool)]) == 0
    capsys.readouterr()
    folders = [nope, empty, file, spool]
    assert cli.main(["spool", "verify", *map(str, folders), "--json"]) == 1
    told = capsys.readouterr()
    found = [json.loads(line) for line in told.out.splitlines()]
    assert [one["dir"] for one in found] == [str(folder) for folder in folders]
    assert [one["ok"] for one in found] == [False, False, False, True]
    no_spool = "is not a spool: it has neither a segment (*.spool) nor meta"
    assert [one["reason"] for one in found] == ["is not a folder", no_spool, "is not a folder", None]
    assert told.err.splitlines() == [f"{one['dir']}: {one['reason']}" for one in found[:3]]
    assert cli.main(["spool", "verify", *map(str, folders)]) == 1
    assert capsys.readouterr().out == f"{spool}: ok: 0 frames, 0 values\n"


def test_a_segment_that_cannot_be_read_is_damage_with_a_reason(tmp_path, monkeypatch, capsys):
    def scan(path, number):
        if number == 99:
            raise OSError(errno.EIO, "Input/output error")
        return whole(path, number)

    whole = verify_module.scan
    monkeypatch.setattr(verify_module, "scan", scan)
    (tmp_path / "meta").write_bytes(b"")
    (tmp_path / "0000000099.spool").write_bytes(b"")
    assert cli.main(["spool", "verify", str(tmp_path), "--json"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert (found["ok"], found["damaged"]) == (False, 1)
    assert found["reason"] == "0000000099.spool cannot be read: Input/output error"
    assert told.err == f"{tmp_path}: {found['reason']}\n"


def test_a_spool_that_others_may_not_read_says_so(tmp_path, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", forbidden)
    found = verify(tmp_path)
    assert (found["ok"], found["reason"]) == (False, "cannot be read: Permission denied")


def test_usage_is_exit_2():
    assert run("nonsense")[0] == 2
    assert run()[0] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["check", "--nope"], "corridor check: error: unrecognized arguments: --nope"),
     (["acl", "--broker", "mosquitto", "-x", "--js=3"], "corridor acl: error: unrecognized arguments: -x --js=3"),
     (["plan", "--js"], "corridor plan: error: the following arguments are required: gateway.toml"),
     (["sim", "--seed", "-1"], "corridor sim: error: the following arguments are required: gateway.toml"),
     (["check", "--", "--nope"], None),
     (["--nope"], "corridor: error: unrecognized arguments: --nope"),
     (["demo", "--port", "99999"], "corridor demo: error: argument --port: got '99999', wanted 0 to 65535"),
     (["demo", "--port", "-1"], "corridor demo: error: argument --port: got '-1', wanted 0 to 65535"),
     (["demo", "--seconds", "nan"], "corridor demo: error: argument --seconds: got 'nan', wanted a number of seconds"),
     (["demo", "--seconds", "-1"], "corridor demo: error: argument --seconds: got '-1', wanted a number of seconds"),
     (["sim", "g.toml", "--cert", "c.pem"], "corridor sim: error: --cert and --key go together"),
     (["sim", "g.toml", "--key", "k.pem"], "corridor sim: error: --cert and --key go together"),
     (["bench", "--minutes", "3"], "corridor bench: error: --minutes is for the stage soak, not for all"),
     (["bench", "read", "--minutes", "3"], "corridor bench: error: --minutes is for the stage soak, not for read"),
     (["bench", "soak", "--minutes", "0"],
      "corridor bench: error: argument --minutes: got '0', wanted a number of minutes above 0")],
)  # fmt: skip
def test_a_usage_error_names_what_is_wrong(capsys, arguments, said):
    if said is None:
        assert cli.main(arguments) == 1
        return
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == said


def parsers(parser):
    """Yield a parser and all below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from parsers(sub)


def test_every_command_and_every_option_says_what_it_does():
    for parser in parsers(words.parser()):
        assert parser.description, parser.prog
        for action in parser._actions:
            if not isinstance(action, argparse._SubParsersAction):
                assert action.help, (parser.prog, action.dest)


def test_the_help_of_sim_names_every_kind_of_fault_and_where_to_read(capsys):
    with pytest.raises(SystemExit):
        cli.main(["sim", "--help"])
    out = capsys.readouterr().out
    assert set(KINDS) <= set(re.findall(r"[a-z_]+", out.split("Kinds of")[1]))
    assert "docs/simulation.md" in out


@pytest.mark.parametrize("unbuffered", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("arguments", [["--help"], ["profile", "list"], ["schema"]], ids=" ".join)
def test_a_reader_that_went_away_is_no_error(arguments, unbuffered):
    reading, writing = os.pipe()
    os.close(reading)
    with started(*arguments, stdout=writing, stderr=subprocess.PIPE, env=unbuffered) as child:
        os.close(writing)
        assert child.stderr.read() == b""
        assert child.wait() == 141


@pytest.mark.parametrize("unbuffered", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("arguments", [["--version"], ["profile", "list"]], ids=" ".join)
def test_output_that_cannot_be_written_is_a_line_and_1(arguments, unbuffered):
    with (
        Path("/dev/full").open("wb") as full,
        started(*arguments, stdout=full, stderr=subprocess.PIPE, env=unbuffered) as child,
    ):
        assert child.stderr.read() == b"standard output cannot be written: No space left on device\n"
        assert child.wait() == 1


def closed(command, *streams):
    """Run a shell line with some of its streams closed; returns exit code, standard output and standard error."""
    line = " ".join([f'exec "{sys.executable}" -m gateway.cli {command}', *(f"{number}>&-" for number in streams)])
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_closed_streams_are_not_taken_for_others(config, tmp_path):
    said = "standard output cannot be written: Bad file descriptor\n"
    assert closed("schema", 1) == (1, "", said)
    assert closed("schema", 0, 1) == (1, "", said)
    assert closed("schema", 1, 2) == (1, "", "")
    assert closed(f"check {config}", 1) == (0, "", "")  # it has nothing to print
    assert closed(f"check {tmp_path}", 2) == (1, "", "")  # and what it says goes nowhere else
    code, out, err = closed("schema", 0)
    assert (code, err) == (0, "")
    assert json.loads(out)


@pytest.mark.parametrize(
    ("command", "code"), [("check", 130), ("acl", 130), ("run", 0), ("ingest", 0), ("console", 0), ("sim", 0)]
)
def test_ctrl_c_before_the_work_is_done_is_130_and_0_for_a_service(tmp_path, command, code):
    path = tmp_path / "gateway.toml"
    os.mkfifo(path)
    with started(command, path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        with path.open("wb"):  # it is open when the command reads it
            child.send_signal(signal.SIGINT)
            assert child.communicate() == (b"", b"")
        assert child.returncode == code


INTERRUPTED_UNHEARD = """
import os, signal, threading
from gateway.commands.terminal import hear_interrupts, leave_on_interrupt
leave_on_interrupt(130)
hear_interrupts()
def press():
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
threading.Timer(0.1, press).start()
os.read(os.pipe()[0], 1)
"""


def test_ctrl_c_ends_a_read_that_waits_for_ever_and_was_not_interrupted():
    """As when the signal comes just before the read: here another thread gets it."""
    child = subprocess.run([sys.executable, "-c", INTERRUPTED_UNHEARD], capture_output=True, timeout=60, check=False)
    assert (child.returncode, child.stderr) == (130, b"")


def test_what_the_machine_refuses_is_a_line_and_not_a_traceback(tmp_path):
    (tmp_path / "file").write_text("")
    mqtt = '[mqtt]\nurl = "mqtt://127.0.0.1:1"\n'
    ingest = tmp_path / "ingest.toml"
    ingest.write_text(mqtt + '[ingest]\nid = "i"\ncorridor = "c"\n[store]\nurl = "influx1://127.0.0.1:1/db"\n')
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        console = tmp_path / "console.toml"
        console.write_text(f'{mqtt}[console]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\n')
        for arguments in (("ingest", ingest, "--state", tmp_path / "file" / "in"), ("console", console)):
            code, _, err = run(*arguments)
            assert code == 1, err
            assert "cannot start: " in err
            assert "Traceback" not in err
