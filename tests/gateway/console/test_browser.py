"""The console as an operator meets it: a real broker, a fake gateway, chromium."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from console_bench import Broker, free_port, running
from console_fake import FakeGateway, connected, device, own_alarm, tag
from console_scene import DEVICES, SceneStore, play, set_up
from playwright.async_api import Browser, Page, async_playwright, expect

from drivers.quality import BAD_CONFIGURATION_ERROR, BAD_NO_COMMUNICATION
from gateway.console import server
from gateway.history.store import Series, Trend
from gateway.wire.events import AlarmRecord
from gateway.wire.topics import GatewayAddress
from tests.gateway.ledgers import NOON, boot_report

CHROMIUM = Path("/usr/bin/chromium")
ARGS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
GW1 = GatewayAddress("link43", "ps1", "gw1")
PRESSURE = "link43/ps1/gw1/bv-1/pressure"
METERS = [
    device("ft-101", "pipe-a", 0, tag("flow", "m3/h", 0.5, low=5500, high=8600), tag("density", "kg/m3", 60)),
    device("bv-1", "pipe-a", 5200, tag("pressure", "bar", 0.5, low=18, high=62)),
]

pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed"),
    pytest.mark.skipif(
        not (server.STATIC / "index.html").exists(), reason="the web part is not built: python hatch_build.py"
    ),
]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGS)
        yield browser
        await browser.close()


@contextlib.asynccontextmanager
async def opened(browser: Browser, url: str, tolerate: str = "nothing", **options: object) -> AsyncIterator[Page]:
    """Open a page; fail if its console says anything bad."""
    context = await browser.new_context(**{"viewport": {"width": 1400, "height": 900}, "locale": "en-GB", **options})
    page = await context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.set_default_timeout(15_000)
    await page.goto(url)
    yield page
    await context.close()
    assert [text for text in said if tolerate not in text] == []


@contextlib.asynccontextmanager
async def pumping(gateway: FakeGateway, readings: dict[str, dict[str, float]]) -> AsyncIterator[None]:
    """Publish the readings five times a second while the block runs; changing the dict changes what is published."""

    async def pump() -> None:
        while True:
            for name, values in list(readings.items()):
                await gateway.frame(name, values)
            await asyncio.sleep(0.2)

    task = asyncio.create_task(pump())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def alarm(priority: int, name: str, ago_s: float, state: str = "unacked") -> AlarmRecord:
    since = time.time_ns() - int(ago_s * 1e9)
    return AlarmRecord(
        "bv-1",
        "pressure",
        name,
        state,
        priority,
        since,
        since,
        17.2,
        18.0,
        "bar",
        f"text {name}",
        "pipe-a",
        5200,
        "bv-1",
    )


async def test_values_move_and_are_struck_out_when_they_stop(broker: Broker, browser: Browser) -> None:
    readings = {"bv-1": {"pressure": 53.25}, "ft-101": {"flow": 7868.0, "density": 861.2}}
    async with (
        connected(broker.port, (GW1, METERS)) as (gw1,),
        running(broker.spec) as console,
        opened(browser, console.url + "#/values") as page,
    ):
        pressure = page.locator(".row.point", has_text="pressure").locator(".value")
        async with pumping(gw1, readings):
            await expect(pressure).to_have_text("53.25")
            readings["bv-1"]["pressure"] = 53.5
            await expect(pressure).to_have_text("53.50")
            await expect(pressure).to_have_class("value")
            assert await pressure.get_attribute("data-quality") == "Good"
            assert await pressure.get_attribute("data-unit") == "bar"
        await expect(pressure).to_have_class("value late")
        await expect(pressure).to_have_class("value stale")
        line = await pressure.locator(".figure").evaluate("e => getComputedStyle(e).textDecorationLine")
        assert line == "line-through"
        await expect(page.locator(".row.device.down", has_text="bv-1")).to_contain_text("no answer, last contact")
        await expect(page.locator(".row.point", has_text="density").locator(".value")).to_have_class("value")
        await page.keyboard.press("g")
        await page.keyboard.press("o")
        await expect(page.locator(".notes .note")).to_contain_text("bv-1 does not answer, last contact")


async def test_bad_quality_is_marked_with_its_opc_ua_name(broker: Broker, browser: Browser) -> None:
    async with (
        connected(broker.port, (GW1, METERS)) as (gw1,),
        running(broker.spec) as console,
        opened(browser, console.url + "#/values/density") as page,
    ):
        await gw1.frame("ft-101", {"density": 861.2})
        row = page.locator(".row.point", has_text="density")
        await expect(row.locator(".value")).to_have_text("861.2")
        await gw1.quality("ft-101", "density", BAD_NO_COMMUNICATION, "no answer in 1.0 s")
        await expect(row.locator(".value")).to_have_class("value bad")
        await expect(row.locator(".quality")).to_have_text("BadNoCommunication")
        await expect(row.locator(".quality")).to_have_attribute("title", "no answer in 1.0 s")
        await gw1.frame("ft-101", {"density": 861.3})
        await expect(row.locator(".value")).to_have_class("value")


async def test_a_device_that_answers_with_exceptions_is_bad_and_not_silent(broker: Broker, browser: Browser) -> None:
    async with (
        connected(broker.port, (GW1, METERS)) as (gw1,),
        running(broker.spec) as console,
        opened(browser, console.url + "#/values") as page,
    ):
        await gw1.frame("bv-1", {"pressure": 53.25})
        await gw1.quality("bv-1", "pressure", BAD_CONFIGURATION_ERROR, "illegal data address")
        row = page.locator(".row.point", has_text="pressure")
        await expect(row.locator(".value")).to_have_class("value stale bad")
        await expect(row.locator(".quality")).to_have_text("BadConfigurationError")
        await expect(page.locator(".row.device", has_text="bv-1")).to_have_class("row device")
        await expect(page.locator(".row.device", has_text="bv-1")).not_to_contain_text("no answer")
        await gw1.quality("bv-1", "pressure", BAD_NO_COMMUNICATION, "no answer in 1.0 s")
        await expect(page.locator(".row.device.down", has_text="bv-1")).to_contain_text("no answer, last contact")


async def test_german_says_alarms_qualities_and_states_in_german(broker: Broker, browser: Browser) -> None:
    async with connected(broker.port, (GW1, METERS)) as (gw1,), running(broker.spec) as console:
        for one in (
            alarm(1, "high", 20),
            replace(alarm(4, "communication", 30), tag="", value=None, limit=None),
            alarm(2, "surge", 40),
        ):
            await gw1.alarm(one)
        async with opened(browser, console.url + "#/alarms", locale="de-DE") as page:
            await expect(page.locator(".alarms tbody .text")).to_have_text(
                [
                    "Hoch: 17,20 bar, über 18,00 bar",
                    "Kommunikation: antwortet nicht",
                    "surge: text surge",  # a newer gateway's alarm has no code here: its own words
                ]
            )
            await page.goto(console.url + "#/values")
            await gw1.frame("bv-1", {"pressure": 53.25})
            good, bad = (page.locator(".row.point", has_text=name).locator(".quality") for name in ("pressure", "dens"))
            await expect(good).to_have_text("gut")
            await gw1.quality("ft-101", "density", BAD_NO_COMMUNICATION, "no answer in 1.0 s")
            await gw1.health({"skid-a": "down"}, clock={"state": "synced", "offset_s": 0.0})
            await expect(bad).to_have_text("schlecht: keine Verbindung")
            await expect(bad).to_have_attribute("title", "BadNoCommunication: no answer in 1.0 s")
            await page.goto(console.url + "#/overview")
            await expect(page.locator(".gateways tbody")).to_contain_text("skid-a aus")
            await expect(page.locator(".gateways tbody")).to_contain_text("synchron")
            await expect(page.locator(".ledger")).to_have_text("Noch kein Ingest hat gesagt, was die Datenbank hat.")
            await gw1.ledger(boot_report("gw1", 7, missing=[(1, 3)], waiting=[(3, 3)]))
            stamp = datetime.fromtimestamp(NOON / 1e9)  # noqa: DTZ006 - local, as the browser shows it
            said = ["1 unterwegs", "2 verloren, erneut angefordert"]
            await expect(page.locator(".ledger .part")).to_have_text(
                [re.compile(f"^Vollständig bis ({stamp:%Y-%m-%d} )?{stamp:%H:%M:%S}$"), *said]
            )


async def test_german_fits_a_phone(broker: Broker, browser: Browser) -> None:
    async with (
        connected(broker.port, (GW1, METERS)),
        running(broker.spec) as console,
        opened(browser, console.url, locale="de-DE", viewport={"width": 390, "height": 844}) as page,
    ):
        for screen in ("values", "alarms", "trend/" + PRESSURE):
            await page.goto(console.url + "#/" + screen)
            await expect(page.locator("input[type=search]:visible")).to_be_visible()
            assert await page.evaluate(CUT) == [], screen


async def test_samples_between_gaps_are_drawn_and_gaps_stay_beside_another_pen(
    broker: Broker, browser: Browser
) -> None:
    async with (
        connected(broker.port, (GW1, METERS)),
        running(broker.spec, LoneStore()) as console,
        opened(
            browser,
            f"{console.url}#/trend/{PRESSURE},{PRESSURE.replace('bv-1/pressure', 'ft-101/density')}",
            tolerate="Canvas2D",
        ) as page,
    ):
        await expect(page.locator(".uplot canvas")).to_be_visible()
        await expect(page.locator(".pens tbody tr").nth(1)).to_contain_text("42.00 … 43.00")
        async with asyncio.timeout(15):
            while await page.evaluate(COLOURED) < 30:  # two dots of 6 px, where lines of no length have no pixel
                await asyncio.sleep(0.05)
        assert await page.evaluate(COLOURED) < 200, "a line through the gap would be 500 px long"


async def test_an_alarm_is_acknowledged_by_keyboard_and_a_refusal_says_why(broker: Broker, browser: Browser) -> None:
    async with connected(broker.port, (GW1, METERS)) as (gw1,), running(broker.spec) as console:
        for one in (alarm(2, "low", 50), alarm(1, "low_low", 20), alarm(3, "rate", 5, "acked")):
            await gw1.alarm(one)
        async with opened(browser, console.url) as page:
            await expect(page.locator(".newest")).to_contain_text("Very low: 17.20 bar, below 18.00 bar")
            await page.keyboard.press("g")
            await page.keyboard.press("a")
            rows = page.locator(".alarms tbody tr")
            await expect(rows).to_have_count(3)
            texts = await rows.locator(".text").all_text_contents()
            assert texts == [
                "Very low: 17.20 bar, below 18.00 bar",
                "Low: 17.20 bar, below 18.00 bar",
                "Rate of change: changes faster than the process can",
            ]
            await expect(page.locator(".count").first).to_have_text("11")  # the figure in the mark, and the count
            gw1.refuse = "only the shift leader may"
            await page.keyboard.press("j")
            await page.keyboard.press("a")
            await expect(page.locator(".toast")).to_contain_text("Enter your name first")
            await expect(page.get_by_label("Your name")).to_be_focused()
            await expect(page.get_by_label("Your name")).to_have_attribute("aria-invalid", "true")
            assert gw1.commands == []
            await page.keyboard.type("anna")
            await page.keyboard.press("Enter")
            first = page.locator('tr[data-key$="/low_low"]')
            await expect(first.locator(".state")).to_have_text("Refused: only the shift leader may")
            await expect(first).to_be_focused()
            gw1.refuse = ""
            for key in ("x", "j", "x", "a"):
                await page.keyboard.press(key)
            for name in ("low_low", "low"):
                await expect(page.locator(f'tr[data-key$="/{name}"] .state')).to_have_text("acknowledged · anna")
            assert [c["key"] for c in gw1.commands[1:]] == ["bv-1/pressure/low_low", "bv-1/pressure/low"]
            assert {c["by"] for c in gw1.commands} == {"anna"}
            await expect(page.locator(".toast")).to_have_text("Acknowledged: 2")


async def test_the_list_does_not_move_under_the_pointer(broker: Broker, browser: Browser) -> None:
    async with connected(broker.port, (GW1, METERS)) as (gw1,), running(broker.spec) as console:
        await gw1.alarm(alarm(2, "low", 50))
        async with opened(browser, console.url + "#/alarms") as page:
            rows = page.locator(".alarms tbody tr .text")
            await expect(rows).to_have_count(1)
            await rows.first.hover()
            await gw1.alarm(alarm(1, "low_low", 1))
            await expect(rows).to_have_text(["Low: 17.20 bar, below 18.00 bar", "Very low: 17.20 bar, below 18.00 bar"])
            await expect(page.locator(".held")).to_be_visible()
            await gw1.clear("bv-1/pressure/low")
            await expect(page.locator("tr.gone")).to_contain_text("Low: 17.20 bar, below 18.00 bar")
            await page.mouse.move(5, 5)
            await expect(rows).to_have_text(["Very low: 17.20 bar, below 18.00 bar"])


async def test_every_screen_by_keyboard_alone(broker: Broker, browser: Browser) -> None:
    async with (
        connected(broker.port, (GW1, METERS)) as (gw1,),
        running(broker.spec) as console,
        opened(browser, console.url) as page,
        pumping(gw1, {"bv-1": {"pressure": 53.25}}),
    ):
        await expect(page.locator(".dot .figure").or_(page.locator(".place .figure")).first).to_be_visible()
        await page.keyboard.press("?")
        await expect(page.locator("dialog")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.locator("dialog")).to_be_hidden()
        await page.keyboard.type("gv")
        await expect(page).to_have_url(console.url + "#/values")
        await page.keyboard.type("/press")
        await expect(page.locator(".row.point:visible")).to_have_count(1)
        await page.keyboard.press("Escape")
        await page.keyboard.press("j")
        await expect(page.locator('.row[aria-selected="true"]')).to_contain_text("pressure")
        await page.keyboard.press("Enter")
        await expect(page).to_have_url(console.url + "#/trend/" + PRESSURE.replace("/", "%2F"))
        await expect(page.locator(".pens tbody tr")).to_contain_text("bv-1 / pressure")
        await expect(page.locator('.windows [aria-pressed="true"]').first).to_have_text("1 h")
        await page.keyboard.press("[")
        await expect(page.locator('.windows [aria-pressed="true"]').first).to_have_text("5 min")
        await page.keyboard.type("/flow")
        await page.keyboard.press("Enter")
        await expect(page.locator(".pens tbody tr")).to_have_count(2)
        await page.keyboard.press("]")  # the chart's key, not a character of the search
        await expect(page.locator('.windows [aria-pressed="true"]').first).to_have_text("1 h")
        await expect(page.get_by_label("Add a tag")).to_have_value("")
        await page.keyboard.type("ga")
        await expect(page.locator(".blank:visible")).to_have_text("No standing alarms.")
        await page.keyboard.type("go")
        await expect(page.locator(".strip")).to_be_visible()
        await shows_what_a_gateway_says_of_itself(page, gw1)
        await shows_the_ledger_and_opens_it_by_keyboard(page, gw1)


async def shows_what_a_gateway_says_of_itself(page: Page, gw1: FakeGateway) -> None:
    await gw1.health({"skid-a": "up"}, clock={"state": "holdover", "offset_s": 0.0123})
    await expect(page.locator(".gateways tbody")).to_contain_text("holding over 12.3 ms")
    await gw1.alarm(own_alarm("spool"))
    mark = page.locator(".gateways th .mark")
    await expect(mark).to_have_attribute("aria-label", re.compile("unacknowledged: Spool: frames wait in memory"))
    await expect(page.locator(".newest")).to_contain_text("Spool: frames wait in memory")
    await expect(page.locator(".newest")).to_contain_text("gw1")
    await mark.click()
    row = page.locator(".alarms tbody tr")
    await expect(row.locator(".tag")).to_have_text("gw1")
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")  # where more of it is to be seen: a gateway has no trend of itself
    await expect(page.locator(".gateways")).to_be_visible()


async def shows_the_ledger_and_opens_it_by_keyboard(page: Page, gw1: FakeGateway) -> None:
    ledger, parts = page.locator(".ledger"), page.locator(".ledger .part:visible")
    now = time.time_ns()
    await gw1.ledger(boot_report("gw1", 7, complete_time=now))
    await expect(parts).to_have_text([re.compile(r"^Complete up to (\S+ )?\d\d:\d\d:\d\d$"), "0 missing"])
    absent = {"ft-101": {"BadTimeout": 37}}
    gap = {"missing": [(300, 551)], "waiting": [(312, 551)], "complete_time": now}
    await gw1.ledger(boot_report("gw1", 7, why={"dropped": [(120, 131)]}, absent=absent, **gap))
    said = ["240 on their way", "12 lost, asked for again", "37 samples never existed", "12 dropped"]
    await expect(parts).to_have_text([re.compile("^Complete up to "), *said])
    await expect(page.locator(".ledger .warn")).to_have_text(said[1])
    details = [
        "Lost, asked for again: 12 frames of boot 7, 300-311",
        "Dropped: the spool was full: 12 frames of boot 7, 120-131",
        "37 samples: ft-101 timed out",
    ]
    await expect(ledger).to_have_attribute("title", "\n".join(details))
    await expect(ledger.locator("li").first).to_be_hidden()
    await page.locator(".ledger summary").focus()
    await page.keyboard.press("Enter")
    await expect(ledger.locator("li:visible")).to_have_text(details)
    await gw1.announce()  # builds the screen anew
    await gw1.ledger(boot_report("gw1", 7, absent=absent), boot_report("gw1", 8), ingest="old", share="archive")
    await expect(ledger.locator("li:visible")).to_have_count(6)  # two databases: what each of them has
    await expect(ledger.locator("li").nth(0)).to_contain_text("archive: Complete up to ")
    await expect(parts.first).to_have_text("ingest:")  # the worst of them on the line
    await expect(page.locator(".ledger summary")).to_be_focused()


async def test_a_trend_continues_live_and_shows_the_value_at_the_cursor(broker: Broker, browser: Browser) -> None:
    readings = {"bv-1": {"pressure": 53.25}}
    async with (
        connected(broker.port, (GW1, METERS)) as (gw1,),
        running(broker.spec) as console,
        opened(browser, console.url) as page,
        pumping(gw1, readings),
    ):
        await expect(page.locator(".strip")).to_be_visible()
        await page.goto(console.url + "#/trend/" + PRESSURE)
        await expect(page.locator(".status")).to_have_text("No database is configured: live values only.")
        row = page.locator(".pens tbody tr")
        await expect(row.locator("td").nth(2)).to_contain_text("53.25 … 53.25")
        readings["bv-1"]["pressure"] = 54.5
        await expect(row.locator("td").nth(2)).to_contain_text("53.25 … 54.50")
        await page.keyboard.press("[")
        await page.keyboard.press("ArrowLeft")
        await page.keyboard.press("ArrowRight")
        await expect(row.locator("td").first).to_have_text("54.50 bar")


async def test_a_lost_server_is_said_and_comes_back_with_the_whole_picture(broker: Broker, browser: Browser) -> None:
    port = free_port()
    async with connected(broker.port, (GW1, METERS)) as (gw1,), contextlib.AsyncExitStack() as pages:
        first = contextlib.AsyncExitStack()
        console = await first.enter_async_context(running(broker.spec, port=port))
        page = await pages.enter_async_context(opened(browser, console.url + "#/values", tolerate="ERR_CONNECTION"))
        await expect(page.locator(".row.point")).to_have_count(3)
        await gw1.frame("ft-101", {"density": 861.2})
        density = page.locator(".row.point", has_text="density").locator(".value")
        await expect(density).to_have_text("861.2")
        await page.evaluate("window.kept = true")
        await first.aclose()
        await expect(page.locator(".notice")).to_contain_text("has lost the console's server since")
        await gw1.frame("ft-101", {"density": 862.0})
        away_ns = time.time_ns() - 120 * 10**9
        await gw1.ledger(boot_report("gw1", 7, complete_time=away_ns), time_ns=away_ns)
        async with running(broker.spec, port=port):
            await expect(page.locator(".notice")).to_be_hidden()
            await expect(density).to_have_class("value never")  # what nobody heard is not shown as if it were known
            await gw1.frame("ft-101", {"density": 862.5})
            await expect(density).to_have_text("862.5")
            assert await page.evaluate("window.kept") is True  # the page was never reloaded
            await page.keyboard.type("go")
            parts = page.locator(".ledger .part")
            since, silent = re.compile("^Complete up to"), re.compile("^no word from the ingest since")
            await expect(parts).to_have_text([since, silent])
            await expect(parts.last).to_have_class("part warn")
            await gw1.ledger(boot_report("gw1", 7, complete_time=time.time_ns()))
            await expect(parts).to_have_text([since, "0 missing"])


async def test_a_lost_broker_is_said(broker: Broker, browser: Browser) -> None:
    async with (
        connected(broker.port, (GW1, METERS)) as (gw1,),
        running(broker.spec) as console,
        opened(browser, console.url) as page,
    ):
        await gw1.frame("bv-1", {"pressure": 53.25})
        await expect(page.locator(".strip")).to_be_visible()
        await expect(page.locator(".notice")).to_be_hidden()
    async with (
        running(replace(broker.spec, urls=("mqtt://127.0.0.1:1",)), connect=False) as lonely,
        opened(browser, lonely.url) as page,
    ):
        await expect(page.locator(".notice")).to_contain_text("has lost the broker since")
        await expect(page.locator(".blank:visible")).to_contain_text("No gateway has been heard yet")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("size", "width", "height"), [("wide", 1600, 1000), ("phone", 390, 844)])
async def test_screens_have_no_sideways_scroll_and_enough_contrast(
    broker: Broker, browser: Browser, tmp_path: Path, theme: str, size: str, width: int, height: int
) -> None:
    async with connected(broker.port, *DEVICES.items()) as gateways, running(broker.spec, SceneStore()) as console:
        await set_up(gateways)
        playing = asyncio.create_task(play(gateways, console.stop))
        view = {"viewport": {"width": width, "height": height}, "color_scheme": theme}
        async with opened(browser, console.url, **view) as page:
            for screen, ready in (
                ("overview", ".strip .figure"),
                ("values", ".row.point .figure"),
                ("alarms", ".alarms tbody tr"),
                ("trend/link43%2Fps1%2Fps1-gw1%2Fft-101%2Fpressure", ".uplot canvas"),
            ):
                await page.goto(console.url + "#/" + screen)
                await expect(page.locator(ready).first).to_be_visible()
                name = screen.split("/")[0]
                await page.screenshot(path=tmp_path / f"{name}-{size}-{theme}.png")
                overflow = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
                assert overflow <= 0, name
                assert await page.evaluate(CONTRAST) == [], name
                assert await page.evaluate(UNNAMED) == [], name
        console.stop.set()
        await playing


CUT = """() => [...document.querySelectorAll('input[placeholder]')].filter((e) => e.checkVisibility()).filter((e) => {
  const style = getComputedStyle(e), canvas = document.createElement('canvas').getContext('2d');
  canvas.font = `${style.fontSize} ${style.fontFamily}`;
  const room = e.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  return canvas.measureText(e.placeholder).width > room;
}).map((e) => `${e.placeholder} in ${e.clientWidth} px`)"""

COLOURED = """(() => {
  const canvas = document.querySelector('.uplot canvas');
  const probe = document.createElement('canvas').getContext('2d');
  probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('--pen-1').trim();
  probe.fillRect(0, 0, 1, 1);
  const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
  const all = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let n = 0;
  const near = (a, b) => Math.abs(a - b) < 60;  // half covered pixels over a grid line too
  for (let i = 0; i < all.length; i += 4) {
    if (all[i + 3] && near(all[i], r) && near(all[i + 1], g) && near(all[i + 2], b)) n++;
  }
  return n;
})()"""


class LoneStore(SceneStore):
    """Of the pressure two samples, half an hour apart; of all else one every ten seconds."""

    async def read(self, series: Series, start_ns: int, stop_ns: int, max_points: int) -> Trend:
        every_s = 1800 if series.tag == "pressure" else 10
        times = np.arange(stop_ns - 2_700 * 10**9, stop_ns, every_s * 10**9, dtype=np.int64)
        value = np.full(times.size, 40.0) if series.tag == "pressure" else np.linspace(42.0, 43.0, times.size)
        return Trend(times, value, value, value)


CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (text) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    const d = canvas.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255];
  };
  const light = ([r, g, b]) => {
    const f = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b);
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] > 0.99) return c; }
    return [255, 255, 255, 1];
  };
  const bad = [];
  for (const e of document.body.querySelectorAll('*')) {
    if (e.closest('svg, .unseen, .skip, :disabled, option') || !e.checkVisibility()) continue;
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(rgba(getComputedStyle(e).color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`${e.className} ${e.textContent.slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return [...new Set(bad)];
}"""

UNNAMED = """() => [...document.querySelectorAll('a, button, input, select')]
  .filter((e) => e.checkVisibility())
  .filter((e) => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.[0]?.textContent.trim()
    || e.querySelector('[aria-label]')))
  .map((e) => e.outerHTML.slice(0, 120))"""
