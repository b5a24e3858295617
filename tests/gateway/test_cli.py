"""The command line as a user types it: exit codes, clear lines, tables and JSON."""

import json
import socket
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from gateway import cli
from gateway.spool.disk import verify
from tests.gateway.model.test_config import GOOD

REGISTERS = Path(__file__).parents[3] / "shared" / "registers"


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


def test_check_is_silent_about_a_good_file(config):
    assert run("check", config) == (0, "", "")


@pytest.mark.parametrize("content", [b"", b"\x00\x81\xff", b"[gateway\n", GOOD.replace("unit = 1", "unt = 1").encode()])
@pytest.mark.parametrize("command", ["check", "run", "plan", "sim"])
def test_a_wrong_file_is_exit_1_and_lines_without_a_traceback(tmp_path, command, content):
    path = tmp_path / "gateway.toml"
    path.write_bytes(content)
    code, out, err = run(command, path)
    assert code == 1
    assert out == ""
    assert err.count("\n") == len(err.splitlines()) >= 1
    assert all(line.startswith(str(path)) for line in err.splitlines())


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


def test_plan_prints_a_table_and_json(config, capsys):
    assert cli.main(["plan", str(config), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"links", "requests", "bytes_per_day", "spool_days", "errors"} <= found.keys()
    assert cli.main(["plan", str(config)]) == 0
    assert "skid-a" in capsys.readouterr().out


def test_profile_list_and_show(capsys):
    assert cli.main(["profile", "list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) >= 36
    assert cli.main(["profile", "show", "eastron_sdm120"]) == 0
    assert "voltage" in capsys.readouterr().out
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


def test_a_segment_that_cannot_be_read_is_damage_with_a_reason(tmp_path, capsys):
    (tmp_path / "0000000001.spool").write_bytes(b"")
    (tmp_path / "0000000099.spool").mkdir()
    assert cli.main(["spool", "verify", str(tmp_path), "--json"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert (found["ok"], found["damaged"]) == (False, 1)
    assert found["reason"] == "0000000099.spool cannot be read: Is a directory"
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
