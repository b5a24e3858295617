/** Up to eight tags over time: history and live values as one line, gaps as gaps. */

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { ValueCell } from "../cells";
import { h, setAttribute, setClass, setText } from "../dom";
import { clock, day, kp, moment, number, unitSign } from "../format";
import { t, word } from "../i18n";
import type { Change, Point } from "../model";
import { isBad } from "../model";
import type { Context, Screen } from "../screen";
import { qualityWord } from "../words";

const PENS = 8;
const FOUND = 12;
const GAPS_STAY: uPlot.JoinNullMode[] = [1, 2, 2, 2]; // a gap of one pen lasts until its own next sample, not another pen's
const LONE_PX = 6; // a sample without neighbours, seen at arm's length
const APPENDED = 900; // live samples after which a thinned window is read anew
const WINDOWS = [
  [300, "trend.5min"],
  [3_600, "trend.1h"],
  [28_800, "trend.8h"],
  [86_400, "trend.1d"],
] as const;

interface Answer {
  from: number;
  to: number;
  store: { state: string; text: string };
  time: number[];
  low: (number | null)[];
  mean: (number | null)[];
  high: (number | null)[];
}

/** Samples without a neighbour, which no line would show: before and after them is a gap, or nothing. */
function alone(plot: uPlot, k: number): number[] | null {
  const values = plot.data[k] as (number | null | undefined)[]; // undefined where only another pen has a sample
  const found: number[] = [];
  let [before, last]: [boolean, number] = [false, -1];
  for (const [i, value] of values.entries()) {
    if (value === undefined) continue;
    if (value === null && last >= 0 && !before) found.push(last);
    before = value !== null && last >= 0;
    last = value === null ? -1 : i;
  }
  if (last >= 0 && !before) found.push(last);
  return found.length ? found : null;
}

class Pen {
  time: number[] = []; // s, as uPlot wants it
  low: (number | null)[] = [];
  mean: (number | null)[] = [];
  high: (number | null)[] = [];
  appended = 0;
  note = "";
  readonly cell: ValueCell;
  readonly row: HTMLTableRowElement;
  readonly at = h("td", { class: "n" });
  readonly span = h("td", { class: "n" });
  readonly quality = h("td", { class: "quality" });
  readonly swatch = h("i");

  constructor(
    readonly point: Point,
    private readonly context: Context,
    onRemove: () => void,
  ) {
    const { device, tag, gateway } = point;
    this.cell = new ValueCell(context.model, point);
    const name = `${device.name} / ${tag.name}`;
    const remove = h("button", { type: "button", class: "quiet", "aria-label": t("trend.remove_name", { name }), onclick: onRemove }, t("trend.remove"));
    const where = [gateway.id, device.line, device.kp_m === null ? "" : `KP ${kp(device.kp_m)}`].filter(Boolean).join(" · ");
    this.row = h(
      "tr",
      { tabindex: "-1" },
      h("th", { scope: "row" }, this.swatch, h("span", {}, name), h("span", { class: "muted" }, where)),
      this.at,
      h("td", { class: "n" }, this.cell.element),
      this.span,
      this.quality,
      h("td", { class: "n" }, remove),
    );
  }

  /** Take the newest live value, or the gap where there is none. */
  follow(): boolean {
    const { point } = this;
    const last = this.time[this.time.length - 1] ?? -Infinity;
    const freshness = this.context.model.freshness(point);
    const isGap = isBad(point.quality) || freshness === "stale";
    if (isGap && Number.isFinite(last) && this.mean[this.mean.length - 1] !== null) {
      this.push(Math.max(point.time / 1000, last) + 0.001, null);
      return true;
    }
    if (isGap || !(point.time / 1000 > last + 0.0005)) return false;
    this.push(point.time / 1000, Number.isFinite(point.value) ? point.value : null);
    return true;
  }

  private push(time: number, value: number | null): void {
    this.time.push(time);
    for (const column of [this.low, this.mean, this.high]) column.push(value);
    this.appended += 1;
  }

  /** The value at a time: of the last sample not after it, or nothing in a gap. */
  valueAt(time: number): number | null {
    let first = 0;
    let last = this.time.length;
    while (first < last) {
      const middle = (first + last) >> 1;
      if ((this.time[middle] as number) <= time) first = middle + 1;
      else last = middle;
    }
    return first ? (this.mean[first - 1] ?? null) : null;
  }
}

export class Trend implements Screen {
  readonly root: HTMLElement;
  private readonly search = h("input", { type: "search", placeholder: t("trend.search"), "aria-label": t("trend.search"), role: "combobox", "aria-expanded": "false", "aria-controls": "trend-found", spellcheck: "false", autocomplete: "off" });
  private readonly found = h("ul", { id: "trend-found", class: "found", role: "listbox", hidden: true });
  private readonly chart = h("div", { class: "chart", role: "img" });
  private readonly blank = h("p", { class: "blank" });
  private readonly status = h("p", { class: "status muted", role: "status" });
  private readonly moment = h("th", { scope: "col", class: "n" });
  private readonly body = h("tbody");
  private readonly table: HTMLTableElement;
  private readonly buttons: HTMLButtonElement[] = [];
  private readonly now: HTMLButtonElement;
  private pens: Pen[] = [];
  private wanted: string[] = [];
  private plot: uPlot | null = null;
  private windowS = 3_600;
  private end: number | null = null; // ms; null follows the present
  private reading = 0;
  private connected = false;
  private hiddenAt = 0;
  private pick = 0;
  private visible = false;

  constructor(private readonly context: Context) {
    const windows = h("div", { class: "windows", role: "group", "aria-label": t("trend.window") });
    for (const [seconds, code] of WINDOWS) {
      const button = h("button", { type: "button", class: "quiet", onclick: () => this.setWindow(seconds) }, t(code));
      this.buttons.push(button);
      windows.append(button);
    }
    this.now = h("button", { type: "button", class: "quiet", onclick: () => this.move(0) }, t("trend.now"));
    const moves = h(
      "div",
      { class: "windows" },
      h("button", { type: "button", class: "quiet", onclick: () => this.move(-1) }, t("trend.earlier")),
      h("button", { type: "button", class: "quiet", onclick: () => this.move(1) }, t("trend.later")),
      this.now,
    );
    const heads = h("tr", {}, h("th", { scope: "col" }, t("trend.pen")), this.moment, h("th", { scope: "col", class: "n" }, t("trend.latest")), h("th", { scope: "col", class: "n" }, t("trend.span")), h("th", { scope: "col", class: "quality" }, t("column.quality")), h("th"));
    this.table = h("table", { class: "pens" }, h("caption", { class: "unseen" }, t("trend.pens")), h("thead", {}, heads), this.body);
    this.search.addEventListener("input", () => this.lookUp());
    this.search.addEventListener("keydown", (event) => this.searchKey(event));
    this.search.addEventListener("blur", () => window.setTimeout(() => this.closeSearch(), 150));
    this.root = h(
      "section",
      { class: "screen trend", "aria-label": t("screen.trend") },
      h("div", { class: "tools" }, h("div", { class: "combo" }, this.search, this.found), windows, moves, h("span", { class: "grow" }), this.status),
      h("div", { class: "scroll", tabindex: "-1" }, this.chart, this.blank, this.table),
    );
    new ResizeObserver(() => this.resize()).observe(this.chart);
    window.addEventListener("themechange", () => this.visible && this.draw(true));
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.visible && this.draw(true));
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.hiddenAt = performance.now();
      else if (this.visible && performance.now() - this.hiddenAt > 3_000) void this.read();
    });
  }

  show(argument: string): void {
    this.visible = true;
    if (argument) this.wanted = argument.split(",").slice(0, PENS);
    this.match();
    this.drawButtons();
  }

  hide(): void {
    this.visible = false;
    this.closeSearch();
  }

  update(change: Change): void {
    const { model, stream } = this.context;
    if (change.shape) this.match();
    if (stream.connected && !this.connected && this.pens.length) void this.read();
    this.connected = stream.connected;
    let moved = false;
    for (const pen of this.pens) {
      if (this.end === null && pen.follow()) moved = true;
      pen.cell.update();
      setText(pen.quality, qualityWord(model.qualityName(pen.point.quality)));
      if (pen.appended > APPENDED) {
        void this.read();
        break;
      }
    }
    if (moved) this.draw(false);
    else if (this.end === null && this.plot) this.frame();
    this.readCursor();
  }

  key(event: KeyboardEvent): boolean {
    const at = WINDOWS.findIndex(([seconds]) => seconds === this.windowS);
    switch (event.key) {
      case "[":
        this.setWindow((WINDOWS[Math.max(0, at - 1)] as (typeof WINDOWS)[number])[0]);
        return true;
      case "]":
        this.setWindow((WINDOWS[Math.min(WINDOWS.length - 1, at + 1)] as (typeof WINDOWS)[number])[0]);
        return true;
      case ",":
        this.move(-1);
        return true;
      case ".":
        this.move(1);
        return true;
      case "n":
        this.move(0);
        return true;
      case "/":
        this.search.focus();
        return true;
      case "j":
      case "k": {
        const rows = this.pens.map((pen) => pen.row);
        const current = rows.indexOf(document.activeElement as HTMLTableRowElement);
        rows[Math.min(rows.length - 1, Math.max(0, current + (event.key === "j" ? 1 : -1)))]?.focus();
        return true;
      }
      case "x":
      case "Delete": {
        const pen = this.pens.find((one) => one.row === document.activeElement);
        if (pen) this.remove(pen.point.id);
        return pen !== undefined;
      }
      case "ArrowLeft":
      case "ArrowRight":
        return this.moveCursor(event.key === "ArrowLeft" ? -1 : 1);
      default:
        return false;
    }
  }

  /** Make pens of the wanted tags, keeping those that are there. */
  private match(): void {
    const { model } = this.context;
    const kept = new Map(this.pens.map((pen) => [pen.point.id, pen]));
    const pens: Pen[] = [];
    let isNew = false;
    for (const id of this.wanted) {
      const point = model.find(id);
      if (!point) continue;
      const old = kept.get(id);
      if (old && old.point === point) pens.push(old);
      else {
        pens.push(new Pen(point, this.context, () => this.remove(id)));
        isNew = true;
      }
    }
    this.pens = pens;
    this.body.replaceChildren(...pens.map((pen) => pen.row));
    pens.forEach((pen, i) => setClass(pen.swatch, `swatch pen-${i + 1}`));
    this.table.hidden = this.chart.hidden = pens.length === 0;
    this.blank.hidden = pens.length > 0;
    const unknown = this.wanted.length > 0 && model.loaded;
    setText(this.blank, !model.loaded ? t("loading") : unknown ? t("trend.unknown", { id: this.wanted.join(", ") }) : t("trend.empty"));
    if (isNew) void this.read();
    this.draw(true);
  }

  private remove(id: string): void {
    this.wanted = this.wanted.filter((one) => one !== id);
    this.address();
  }

  private add(id: string): void {
    if (this.wanted.includes(id)) return;
    if (this.wanted.length >= PENS) {
      this.context.announce(t("trend.full", { n: PENS }));
      return;
    }
    this.wanted = [...this.wanted, id];
    this.address();
  }

  private address(): void {
    history.replaceState(null, "", `#/trend/${this.wanted.map(encodeURIComponent).join(",")}`);
    this.match();
  }

  private setWindow(seconds: number): void {
    this.windowS = seconds;
    this.drawButtons();
    void this.read();
  }

  private move(by: number): void {
    const now = this.context.model.now();
    const end = by === 0 ? now : (this.end ?? now) + (by * this.windowS * 1000) / 2;
    this.end = end >= now ? null : end;
    this.drawButtons();
    void this.read();
  }

  private drawButtons(): void {
    WINDOWS.forEach(([seconds], i) => setAttribute(this.buttons[i] as HTMLElement, "aria-pressed", String(seconds === this.windowS)));
    setAttribute(this.now, "aria-pressed", String(this.end === null));
  }

  private span(): [number, number] {
    const end = this.end ?? this.context.model.now();
    return [end - this.windowS * 1000, end];
  }

  private async read(): Promise<void> {
    if (!this.pens.length || !this.context.model.loaded) return;
    const turn = ++this.reading;
    const [from, to] = this.span();
    const points = Math.min(2_000, Math.max(300, Math.round(this.chart.clientWidth || 800)));
    if (this.pens.every((pen) => !pen.time.length)) setText(this.status, t("loading"));
    const pens = this.pens;
    const stores = await Promise.all(pens.map((pen) => this.readPen(pen, Math.floor(from), Math.ceil(to), points, turn)));
    if (turn !== this.reading) return;
    const state = stores.find((one) => one.state !== "ok") ?? { state: "ok", text: "" };
    if (state.state === "none") setText(this.status, t("trend.store_none"));
    else if (state.state === "away") setText(this.status, t("trend.store_away", { text: state.text }));
    else if (state.state === "failed") setText(this.status, t("trend.failed"));
    else setText(this.status, "");
    setClass(this.status, state.state === "ok" || state.state === "none" ? "status muted" : "status short");
    this.draw(false);
  }

  private async readPen(pen: Pen, from: number, to: number, points: number, turn: number): Promise<{ state: string; text: string }> {
    const { gateway, device, tag } = pen.point;
    const query = new URLSearchParams({ gateway: gateway.key, device: device.name, tag: tag.name, from: String(from), to: String(to), points: String(points) });
    try {
      const response = await fetch(`api/trend?${query}`);
      if (!response.ok) return { state: "failed", text: String(response.status) };
      const answer = (await response.json()) as Answer;
      if (turn !== this.reading) return { state: "ok", text: "" };
      pen.time = answer.time.map((ms) => ms / 1000);
      pen.low = answer.low;
      pen.mean = answer.mean;
      pen.high = answer.high;
      pen.appended = 0;
      return answer.store;
    } catch {
      return { state: "failed", text: "" };
    }
  }

  private draw(anew: boolean): void {
    if (anew) {
      this.plot?.destroy();
      this.plot = null;
    }
    if (!this.visible || !this.pens.length || !this.chart.clientWidth) return;
    const tables = this.pens.map((pen): uPlot.AlignedData => [pen.time, pen.mean, pen.low, pen.high]);
    const data = uPlot.join(tables, tables.map(() => GAPS_STAY)) as uPlot.AlignedData;
    if (!this.plot) this.plot = new uPlot(this.options(), data, this.chart);
    else this.plot.setData(data, false);
    this.frame();
    setAttribute(this.chart, "aria-label", t("trend.chart", { names: this.pens.map((pen) => `${pen.point.device.name}/${pen.point.tag.name}`).join(", ") }));
    for (const pen of this.pens) {
      const values = pen.mean.filter((value): value is number => value !== null);
      const low = pen.low.reduce<number>((a, b) => (b !== null && b < a ? b : a), Infinity);
      const high = pen.high.reduce<number>((a, b) => (b !== null && b > a ? b : a), -Infinity);
      setText(pen.span, values.length ? `${number(low, pen.point.decimals)} … ${number(high, pen.point.decimals)}` : "\u2013");
    }
  }

  /** Put the window in place; the vertical scales follow what is in it. */
  private frame(): void {
    const [from, to] = this.span();
    this.plot?.setScale("x", { min: from / 1000, max: to / 1000 });
  }

  private resize(): void {
    if (!this.visible || !this.chart.clientWidth) return;
    if (!this.plot) this.draw(true);
    else this.plot.setSize({ width: this.chart.clientWidth, height: this.chart.clientHeight });
  }

  private options(): uPlot.Options {
    const style = getComputedStyle(document.documentElement);
    const colour = (name: string): string => style.getPropertyValue(name).trim();
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const units = [...new Set(this.pens.map((pen) => pen.point.tag.unit))];
    const grid = { stroke: colour("--hair"), width: 1 };
    const narrow = this.chart.clientWidth < 600;
    const axis = { stroke: colour("--muted"), font, grid, ticks: { ...grid, size: 4 } };
    const series: uPlot.Series[] = [{}];
    const bands: uPlot.Band[] = [];
    this.pens.forEach((pen, i) => {
      const stroke = colour(`--pen-${i + 1}`);
      const scale = `unit ${pen.point.tag.unit}`;
      const dash = i >= 4 ? [6, 3] : [];
      series.push({ scale, stroke, dash, width: 1.5, points: { show: false, filter: alone, size: LONE_PX, fill: stroke } }, { scale, points: { show: false } }, { scale, points: { show: false } });
      bands.push({ series: [series.length - 1, series.length - 2], fill: `${stroke}30` });
    });
    const scales: uPlot.Scales = { x: { time: true, auto: false } };
    for (const unit of units) {
      scales[`unit ${unit}`] = {
        range: (_u, low, high) => {
          if (!Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
          const pad = 0.08 * (high - low) || 0.02 * Math.abs(high) || 1;
          return [low - pad, high + pad];
        },
      };
    }
    const sides: uPlot.Axis[] = units.slice(0, narrow ? 1 : 3).map((unit, i) => ({
      ...axis,
      scale: `unit ${unit}`,
      side: i === 0 ? 3 : 1,
      size: 58,
      label: unitSign(unit),
      labelFont: font,
      labelSize: 18,
      grid: i === 0 ? grid : { show: false },
      values: (_u, splits, _axis, _space, step) => splits.map((value) => number(value, Math.max(0, -Math.floor(Math.log10(step))))),
    }));
    const x: uPlot.Axis = {
      ...axis,
      space: 80,
      values: (_u, splits, _axis, _space, step) =>
        splits.map((s) => (step >= 86_400 ? day(new Date(s * 1000)) : step >= 60 ? clock(s * 1000).slice(0, 5) : clock(s * 1000))),
    };
    return {
      width: this.chart.clientWidth,
      height: this.chart.clientHeight,
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, points: { show: false }, y: false },
      scales,
      series,
      bands,
      axes: [x, ...sides],
      hooks: { setCursor: [() => this.readCursor()], draw: [(u) => this.drawLimits(u, colour("--muted"), font)] },
    };
  }

  /** The limits of a tag that is alone on the chart. */
  private drawLimits(u: uPlot, stroke: string, font: string): void {
    const [pen] = this.pens;
    if (!pen || this.pens.length > 1) return;
    const { ctx } = u;
    const { left, top, width, height } = u.bbox;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = stroke;
    ctx.font = font.replace(/^\d+/, String(11 * devicePixelRatio));
    ctx.setLineDash([2 * devicePixelRatio, 4 * devicePixelRatio]);
    for (const [name, limit] of Object.entries(pen.point.tag.limits)) {
      const y = u.valToPos(limit, `unit ${pen.point.tag.unit}`, true);
      if (y < top || y > top + height) continue;
      ctx.beginPath();
      ctx.moveTo(left, y);
      ctx.lineTo(left + width, y);
      ctx.stroke();
      ctx.fillText(`${word("condition", name)} ${limit}`, left + 6, y - 4);
    }
    ctx.restore();
  }

  private moveCursor(by: number): boolean {
    const { plot } = this;
    if (!plot) return false;
    const width = plot.over.clientWidth;
    const left = (plot.cursor.left ?? -1) < 0 ? width : (plot.cursor.left as number);
    plot.setCursor({ left: Math.min(width, Math.max(0, left + (by * width) / 100)), top: 1 });
    return true;
  }

  private readCursor(): void {
    const left = this.plot?.cursor.left ?? -1;
    const at = left < 0 ? null : (this.plot?.posToVal(left, "x") ?? null);
    setText(this.moment, at === null ? t("trend.at_cursor") : moment(at * 1000, this.context.model.now()));
    for (const pen of this.pens) {
      const value = at === null ? null : pen.valueAt(at);
      setText(pen.at, value === null ? "\u2013" : `${number(value, pen.point.decimals)} ${pen.point.unit}`);
    }
  }

  private lookUp(): void {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const hits: Point[] = [];
    if (words.length) {
      for (const point of this.context.model.points()) {
        if (words.every((one) => point.search.includes(one))) hits.push(point);
        if (hits.length >= FOUND) break;
      }
    }
    this.pick = 0;
    this.found.replaceChildren(
      ...hits.map((point, i) =>
        h(
          "li",
          { role: "option", id: `trend-found-${i}`, "data-id": point.id, onmousedown: (event: MouseEvent) => (event.preventDefault(), this.choose(point.id)) },
          h("b", {}, `${point.device.name} / ${point.tag.name}`),
          h("span", { class: "muted" }, [point.gateway.id, point.device.line, point.unit].filter(Boolean).join(" · ")),
        ),
      ),
    );
    if (words.length && !hits.length) this.found.append(h("li", { class: "muted" }, t("values.none_match")));
    this.found.hidden = !words.length;
    this.markPick();
  }

  private searchKey(event: KeyboardEvent): void {
    const options = [...this.found.querySelectorAll<HTMLElement>("[role=option]")];
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      this.pick = Math.min(options.length - 1, Math.max(0, this.pick + (event.key === "ArrowDown" ? 1 : -1)));
      this.markPick();
      event.preventDefault();
    } else if (event.key === "Enter") {
      const id = options[this.pick]?.dataset["id"];
      if (id) this.choose(id);
    }
  }

  private choose(id: string): void {
    this.add(id);
    this.search.value = "";
    this.closeSearch();
    const pen = this.pens.find((one) => one.point.id === id);
    if (pen) pen.row.focus(); // the keys of the chart must not be typed into the search
    else this.search.blur();
  }

  private closeSearch(): void {
    this.found.hidden = true;
    setAttribute(this.search, "aria-expanded", "false");
    setAttribute(this.search, "aria-activedescendant", null);
  }

  private markPick(): void {
    [...this.found.querySelectorAll("[role=option]")].forEach((one, i) => setAttribute(one, "aria-selected", String(i === this.pick)));
    setAttribute(this.search, "aria-expanded", String(!this.found.hidden));
    setAttribute(this.search, "aria-activedescendant", this.found.hidden ? null : `trend-found-${this.pick}`);
  }
}
