"""A database through the detectors says what the same values say as CSV."""

import asyncio
import math

import numpy as np

from gateway.history.sqlite import Sqlite
from gateway.history.store import open_store
from gateway.model.corridor import StoreSpec
from gateway.replay import database
from tests import servers
from tests.gateway.replay import bench
from tests.gateway.replay.bench import T0, S

DEVICE = (
    bench.CONFIG[: bench.CONFIG.index("[[device]]")]
    + """
[[device]]
name = "a"
link = "l"
period_s = 1.0
  [[device.point]]
  name = "flow"
  function = "holding"
  address = 0
  type = "float32"
  [[device.point]]
  name = "level"
  function = "holding"
  address = 2
  type = "float32"
  [device.tag.flow]
  high = 60.0
  deadband = 2.0
  on_delay_s = 3
"""
)
N = 2500


def samples():
    """Return float64[N, 2] with a high value, a step, a spike, and holes."""
    rng = np.random.default_rng(2)
    value = np.array([50.0, 20.0]) + rng.normal(0, 0.3, (N, 2)) + np.sin(np.arange(N) / 50)[:, None]
    value[800:830, 0] += 12
    value[1500, 1] += 40
    value[2000:, 1] += 4
    value[rng.random((N, 2)) < 0.01] = math.nan
    return value.round(4)


def lines(value):
    for k, row in enumerate(value):
        fields = ",".join(f"{name}={v!r}" for name, v in zip(("flow", "level"), row.tolist(), strict=True) if v == v)
        if fields:
            yield f"meter,corridor=c,site=s,gateway=gw1,device=a {fields} {T0 + k * S}\n".encode()


async def write(url, token=None):
    store = open_store(StoreSpec(url, token))
    await store.write(b"".join(lines(samples())))
    await store.close()


def check(folder, capsys, url, *arguments):
    """Replay a database, and its values as CSV; the same lines must come out."""
    config = bench.write_config(folder, DEVICE)
    source = folder / "values.csv"
    rows = [(T0 + k * S, *("" if v != v else repr(v) for v in row)) for k, row in enumerate(samples().tolist())]
    rows = [row for row in rows if row[1:] != ("", "")]
    source.write_text("time,a.flow,a.level\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    told = bench.summary(capsys, source, "--config", config, "--out", folder / "csv.csv")
    found = bench.summary(
        capsys, url, "--config", config, "--from", T0, "--to", T0 + N * S, "--out", folder / "db.csv", *arguments
    )
    assert (folder / "db.csv").read_text() == (folder / "csv.csv").read_text()
    same = ("rows", "values", "first_ns", "last_ns", "alarms", "anomalies", "changepoints")
    assert {name: found[name] for name in same} == {name: told[name] for name in same}
    assert {one["reason"] for one in told["alarms"]} >= {"high", "spike"}
    early = T0 - 300 * 86_400 * S
    bench.summary(
        capsys, url, "--config", config, "--from", early, "--to", T0 + N * S, "--out", folder / "early.csv", *arguments
    )
    assert (folder / "early.csv").read_text() == (folder / "csv.csv").read_text()


def test_sqlite(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(database, "ROWS", 700)  # several windows
    url = f"sqlite://{tmp_path}/history.sqlite"
    asyncio.run(write(url))
    check(tmp_path, capsys, url)


def test_what_is_empty_is_passed_in_few_questions(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(database, "ROWS", 700)
    url = f"sqlite://{tmp_path}/history.sqlite"
    asyncio.run(write(url))
    asked = []
    whole = Sqlite.read

    async def read(self, series, start_ns, stop_ns, max_points):
        asked.append(stop_ns - start_ns)
        return await whole(self, series, start_ns, stop_ns, max_points)

    monkeypatch.setattr(Sqlite, "read", read)
    config = bench.write_config(tmp_path, DEVICE)
    found = bench.summary(capsys, url, "--config", config, "--from", T0 - 900 * 86_400 * S, "--to", T0 + N * S)
    assert found["rows"] > 2400
    assert len(asked) < 500  # of 110,000 windows of 700 s


def test_influx1(tmp_path, capsys, influxd):
    name = asyncio.run(servers.create_database(influxd.port))
    url = f"influx1://127.0.0.1:{influxd.port}/{name}"
    asyncio.run(write(url))
    check(tmp_path, capsys, url)


async def test_influx2(tmp_path, capsys, influx2, influx_database):
    url = f"{influx2.url}&bucket={influx_database}"
    await write(url, servers.TOKEN)
    token = tmp_path / "token"
    token.write_text(servers.TOKEN + "\n")
    await asyncio.to_thread(check, tmp_path, capsys, url, "--token-file", token)


def refused(capsys, *arguments):
    code, out, (line,) = bench.replayed(capsys, *arguments)
    assert out == ""
    return code, line


def test_what_is_wrong_is_one_line(tmp_path, capsys):
    config = bench.write_config(tmp_path, DEVICE)
    (tmp_path / "x.sqlite").touch()
    url = f"sqlite://{tmp_path}/x.sqlite"
    settings = ("--config", config)
    assert refused(capsys, url, "--from", 0) == (
        1, f"{url}: wanted --config gateway.toml: it says which tags to replay, and their settings",
    )  # fmt: skip
    assert refused(capsys, url, *settings) == (1, f"{url}: wanted --from: a database is replayed over a range of time")
    assert refused(capsys, url, *settings, "--from", T0, "--to", T0) == (1, f"{url}: --to is not after --from")
    code, line = refused(capsys, "mysql://x/y", *settings, "--from", T0, "--to", T0 + S)
    assert (code, line) == (1, "mysql://x/y: got 'mysql', wanted influx2, influx1 or sqlite")
    code, line = refused(
        capsys, "influx1://x/y", *settings, "--from", T0, "--to", T0 + S, "--token-file", tmp_path / "no"
    )
    assert (code, line) == (1, f"{tmp_path}/no: cannot be read: No such file or directory")


def test_a_file_that_is_not_there_is_not_made(tmp_path, capsys):
    config = bench.write_config(tmp_path, DEVICE)
    url = f"sqlite://{tmp_path}/no.sqlite"
    code, line = refused(capsys, url, "--config", config, "--from", T0, "--to", T0 + S)
    assert (code, line) == (1, f"{url}: no such file")
    assert not (tmp_path / "no.sqlite").exists()


def test_a_database_that_is_away_is_exit_code_3(tmp_path, capsys):
    config = bench.write_config(tmp_path, DEVICE)
    url = f"influx1://127.0.0.1:{servers.free_port()}/x"
    out = tmp_path / "scores.csv"
    code, line = refused(capsys, url, "--config", config, "--from", T0, "--to", T0 + S, "--out", out)
    assert code == 3
    assert "127.0.0.1" in line
    assert not out.exists()


def test_a_file_that_is_no_database_is_refused(tmp_path, capsys):
    config = bench.write_config(tmp_path, DEVICE)
    (tmp_path / "x").write_text("no database" * 1000)
    code, line = refused(capsys, f"sqlite://{tmp_path}/x", "--config", config, "--from", T0, "--to", T0 + S)
    assert (code, line) == (1, f"{tmp_path}/x: file is not a database")
