/** Every live value, grouped by gateway, site and device. Only the rows in view exist; they never change places. */

import { h, setAttribute, setClass, setText } from "../dom";
import { kp, moment } from "../format";
import { t } from "../i18n";
import type { Change, Device, Gateway, Model, Point } from "../model";
import { shown, trendHref } from "../cells";
import type { Context, Screen } from "../screen";

const EXTRA = 6; // rows beyond the view, so that a flick of the wheel does not show blank

type Item = { kind: "gateway"; gateway: Gateway } | { kind: "device"; gateway: Gateway; device: Device } | { kind: "point"; point: Point };

/** One row that can show any item. */
class Row {
  readonly element = h("div", { class: "row", role: "row" });
  private item: Item | null = null;
  private readonly name = h("a", { class: "name", role: "cell", tabindex: "-1" });
  private readonly figure = h("span", { class: "figure" });
  private readonly value = h("span", { class: "value", role: "cell" }, this.figure);
  private readonly unit = h("span", { class: "unit", role: "cell" });
  private readonly low = h("span", { class: "band" });
  private readonly needle = h("span", { class: "needle" });
  private readonly gauge = h("span", { class: "gauge", role: "cell", "aria-hidden": "true" }, this.low, this.needle);
  private readonly quality = h("span", { class: "quality", role: "cell" });
  private readonly age = h("span", { class: "age", role: "cell" });
  private readonly period = h("span", { class: "period", role: "cell" });
  private readonly title = h("span", { class: "title", role: "cell" });
  private readonly note = h("span", { class: "note", role: "cell" });

  constructor(private readonly model: Model) {}

  show(item: Item, index: number, y: number, isCurrent: boolean): void {
    if (item !== this.item) {
      this.item = item;
      if (item.kind === "point") {
        this.element.replaceChildren(this.name, this.value, this.unit, this.gauge, this.quality, this.age, this.period);
        setText(this.name, item.point.tag.name);
        this.name.href = trendHref(item.point);
        setText(this.unit, item.point.unit);
        setText(this.period, item.point.tag.period_s ? `${item.point.tag.period_s} s` : "");
        this.layGauge(item.point);
      } else {
        this.element.replaceChildren(this.title, this.note);
      }
    }
    this.element.style.transform = `translateY(${y}px)`;
    setAttribute(this.element, "aria-rowindex", String(index + 1));
    setAttribute(this.element, "aria-selected", isCurrent ? "true" : null);
    this.update();
  }

  private update(): void {
    const { item, model } = this;
    if (!item) return;
    if (item.kind === "point") this.updatePoint(item.point);
    else if (item.kind === "gateway") {
      const { gateway } = item;
      const isDown = model.isDown(gateway);
      setClass(this.element, isDown ? "row gateway down" : "row gateway");
      setText(this.title, `${gateway.id}`);
      const n = t("values.tags", { n: gateway.points.length });
      setText(this.note, isDown ? t("outage.gateway", { time: moment(gateway.heard || NaN, model.now()) }) : `${gateway.corridor} / ${gateway.site} · ${n}`);
    } else {
      const { gateway, device } = item;
      const outage = model.outage(gateway, device);
      setClass(this.element, outage ? "row device down" : "row device");
      setText(this.title, device.name);
      const place = [device.line, device.kp_m === null ? "" : `KP ${kp(device.kp_m)}`, device.asset === device.name ? "" : device.asset].filter(Boolean).join(" · ");
      setText(this.note, outage ? `${t(outage.cause === "device" ? "outage.silent" : `outage.${outage.cause}`, { name: outage.name, time: moment(outage.last, model.now()) })} · ${place}` : place);
    }
  }

  private updatePoint(point: Point): void {
    const now = shown(this.model, point);
    setText(this.figure, now.text);
    setClass(this.value, now.look ? `value ${now.look}` : "value");
    setAttribute(this.value, "data-unit", point.unit);
    setAttribute(this.value, "data-quality", now.quality);
    setAttribute(this.value, "data-age", Number.isFinite(now.ageS) ? now.ageS.toFixed(0) : "");
    const why = point.gateway.why.get(point.row) ?? "";
    setText(this.quality, now.qualityText);
    const more = [now.quality, why].filter((one) => one && one !== now.qualityText);
    setAttribute(this.quality, "title", [...new Set(more)].join(": ") || null);
    setText(this.age, now.look.includes("never") ? t("values.never") : now.age);
    setClass(this.element, `row point ${now.look}`);
    const [from, to] = this.scale;
    const at = (point.value - from) / (to - from);
    this.needle.hidden = !Number.isFinite(at);
    if (Number.isFinite(at)) this.needle.style.left = `${Math.min(100, Math.max(0, at * 100)).toFixed(1)}%`;
  }

  private scale: [number, number] = [0, 0];

  /** Lay the bar from the range, or around the limits where there is no range; the normal band is between the limits. */
  private layGauge(point: Point): void {
    const { limits, range } = point.tag;
    const low = limits.low ?? limits.low_low;
    const high = limits.high ?? limits.high_high;
    const known = [low, high].filter((one): one is number => one !== undefined);
    const ends = Object.values(limits);
    let scale: [number, number] | null = null;
    if (ends.length) {
      const margin = 0.25 * (Math.max(...ends) - Math.min(...ends) || Math.abs(ends[0] as number));
      scale = [Math.min(...ends) - margin, Math.max(...ends) + margin];
      if (low === undefined && limits.low_low === undefined) scale[0] = Math.min(0, scale[0]);
    } else if (range) scale = range;
    this.scale = scale ?? [0, 0];
    setClass(this.gauge, scale ? "gauge" : "gauge without");
    this.low.hidden = known.length === 0 || !scale;
    if (!scale) return;
    const [from, to] = scale;
    const left = low === undefined ? 0 : (low - from) / (to - from);
    const right = high === undefined ? 1 : (high - from) / (to - from);
    this.low.style.left = `${Math.max(0, left * 100)}%`;
    this.low.style.width = `${Math.min(1, right) * 100 - Math.max(0, left * 100)}%`;
  }
}

export class Values implements Screen {
  readonly root: HTMLElement;
  private readonly filter = h("input", { type: "search", placeholder: t("values.filter"), "aria-label": t("values.filter"), spellcheck: "false" });
  private readonly abnormal = h("input", { type: "checkbox" });
  private readonly count = h("span", { class: "muted" });
  private readonly sheet = h("div", { class: "sheet", role: "rowgroup" });
  private readonly view: HTMLElement;
  private readonly blank = h("p", { class: "blank" });
  private readonly rows: Row[] = [];
  private items: Item[] = [];
  private current: Point | null = null;
  private height = 26;

  constructor(private readonly context: Context) {
    this.filter.addEventListener("input", () => this.select());
    this.abnormal.addEventListener("change", () => this.select());
    const names: [string, string][] = [
      ["name", t("column.tag")],
      ["value", t("column.value")],
      ["unit", t("column.unit")],
      ["gauge", t("column.band")],
      ["quality", t("column.quality")],
      ["age", t("column.age")],
      ["period", t("column.period")],
    ];
    const head = h("div", { class: "row head", role: "row" });
    for (const [name, label] of names) head.append(h("span", { class: name, role: "columnheader" }, label));
    this.view = h("div", { class: "scroll values", role: "table", tabindex: "0", "aria-label": t("screen.values") }, head, this.sheet, this.blank);
    this.view.addEventListener("scroll", () => this.draw(), { passive: true });
    this.root = h(
      "section",
      { class: "screen", "aria-label": t("screen.values") },
      h("div", { class: "tools" }, this.filter, h("label", { class: "check" }, this.abnormal, t("values.abnormal")), this.count),
      this.view,
    );
    new ResizeObserver(() => this.draw()).observe(this.view);
  }

  show(argument: string): void {
    if (argument) this.filter.value = argument;
    this.select();
  }

  hide(): void {}

  update(change: Change): void {
    if (change.shape) this.select();
    else this.draw();
  }

  key(event: KeyboardEvent): boolean {
    switch (event.key) {
      case "j":
      case "ArrowDown":
        return this.step(1);
      case "k":
      case "ArrowUp":
        return this.step(-1);
      case "/":
        this.filter.focus();
        this.filter.select();
        return true;
      case "Enter":
        if (!this.current) return false;
        this.context.go(trendHref(this.current));
        return true;
      case "Escape":
        if (!this.filter.value) return false;
        this.filter.value = "";
        this.select();
        return true;
      default:
        return false;
    }
  }

  private step(by: number): boolean {
    const points = this.items.flatMap((item, index) => (item.kind === "point" ? [{ point: item.point, index }] : []));
    if (!points.length) return true;
    const at = points.findIndex(({ point }) => point === this.current);
    const next = points[Math.min(points.length - 1, Math.max(0, at + by))];
    if (!next) return true;
    this.current = next.point;
    const y = next.index * this.height;
    const top = this.view.scrollTop;
    const visible = this.view.clientHeight - 2 * this.height;
    if (y < top + this.height) this.view.scrollTop = Math.max(0, y - this.height);
    else if (y > top + visible) this.view.scrollTop = y - visible;
    this.draw();
    return true;
  }

  /** Choose the items: all, or those that have every word of the filter. */
  private select(): void {
    const { model } = this.context;
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    this.items = [];
    let n = 0;
    let all = 0;
    for (const gateway of model.gateways.values()) {
      const before = this.items.length;
      this.items.push({ kind: "gateway", gateway });
      for (const device of inPlace(gateway.devices)) {
        const points = gateway.pointsOf(device);
        all += points.length;
        const found = points.filter(
          (point) =>
            words.every((one) => point.search.includes(one)) &&
            (!this.abnormal.checked || shown(model, point).look !== "" || gateway.alarms.some((alarm) => alarm.device === device.name && alarm.tag === point.tag.name)),
        );
        if (!found.length) continue;
        n += found.length;
        this.items.push({ kind: "device", gateway, device }, ...found.map((point): Item => ({ kind: "point", point })));
      }
      if (this.items.length === before + 1 && (words.length || this.abnormal.checked)) this.items.pop();
    }
    if (this.current) this.current = model.find(this.current.id);
    setText(this.count, n === all ? t("values.tags", { n }) : t("values.of", { n, all }));
    this.blank.hidden = n > 0;
    setText(this.blank, !model.loaded ? t("loading") : !all ? t("values.none") : this.abnormal.checked && !words.length ? t("values.all_normal") : t("values.none_match"));
    this.draw();
  }

  private draw(): void {
    if (!this.view.clientHeight) return;
    this.height = parseFloat(getComputedStyle(this.view).getPropertyValue("--row")) || 26;
    this.sheet.style.height = `${this.items.length * this.height}px`;
    setAttribute(this.view, "aria-rowcount", String(this.items.length + 1));
    const first = Math.max(0, Math.floor(this.view.scrollTop / this.height) - EXTRA);
    const last = Math.min(this.items.length, first + Math.ceil(this.view.clientHeight / this.height) + 2 * EXTRA);
    while (this.rows.length < last - first) {
      const row = new Row(this.context.model);
      this.rows.push(row);
      this.sheet.append(row.element);
    }
    // Row k always shows an item whose index is k modulo the number of rows: scrolling by one changes one row.
    const size = this.rows.length;
    const used = new Set<Row>();
    for (let index = first; index < last; index++) {
      const row = this.rows[index % size] as Row;
      const item = this.items[index] as Item;
      row.element.hidden = false;
      used.add(row);
      row.show(item, index + 1, index * this.height, item.kind === "point" && item.point === this.current);
    }
    for (const row of this.rows) if (!used.has(row)) row.element.hidden = true;
  }
}

/** Devices by line and place on it, never by name. */
export function inPlace(devices: Device[]): Device[] {
  const order = new Map(devices.map((device, i) => [device, i]));
  return [...devices].sort(
    (a, b) => (a.line < b.line ? -1 : a.line > b.line ? 1 : 0) || (a.kp_m ?? Infinity) - (b.kp_m ?? Infinity) || (order.get(a) as number) - (order.get(b) as number),
  );
}
