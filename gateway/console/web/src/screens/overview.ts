/**
 * The corridor: one strip per line, the same km under the same x on every strip.
 *
 *   axis      0        10        20        30        40 km
 *   pressure  o----o-----o-----<>-----o-------o          what operators compare along the line, over its normal band
 *             KP 0+000  KP 5+200 ...                     each place, its devices and their other values
 *             [ no contact since 12:03:10 ]              a band over what cannot be heard
 */

import { ValueCell, shown, trendHref } from "../cells";
import { h, setAttribute, setClass, setText, svg } from "../dom";
import { kp, moment, number } from "../format";
import { t, word } from "../i18n";
import { LedgerLine } from "../ledger";
import { alarmMark, byUrgency } from "../marks";
import type { Alarm, Change, Device, Gateway, Model, Point } from "../model";
import { isActive, isBad, isOwn, isUnacknowledged } from "../model";
import type { Context, Screen } from "../screen";
import { inPlace } from "./values";

const PROFILES = 3; // quantities a strip compares; more would be wallpaper
const KEYS = 3; // values a device shows here; all of them are one step away
const CELL = 164; // px, a place with its values
const NAME = 96; // px, a place without: its values are in the plots above
const PLOT = 60; // px, the height of a plot, as in the style sheet
const LANES = 4; // rows of places; a fuller strip shows only what is not normal
const SHARED = 0.2; // a line shorter than this part of the longest gets a scale of its own

interface Placed {
  gateway: Gateway;
  device: Device;
}

interface Line {
  name: string;
  placed: Placed[];
}

interface Scale {
  from: number;
  to: number;
}

/** Devices `from` to `to` of a line that are silent for one reason; `last` is null where there was no contact. */
interface Run {
  cause: "gateway" | "link" | "device";
  name: string;
  last: number | null;
  from: number;
  to: number;
}

type Update = () => unknown;

export class Overview implements Screen {
  readonly root: HTMLElement;
  private readonly strips = h("div", { class: "strips" });
  private readonly blank = h("p", { class: "blank" });
  private readonly gateways = h("div", { class: "gateways" });
  private updates: Update[] = [];
  private watches: IntersectionObserver[] = [];
  private width = 0;
  private readonly opened = new Set<string>(); // gateways whose ledger is open

  constructor(private readonly context: Context) {
    this.root = h("section", { class: "screen overview", tabindex: "-1", "aria-label": t("screen.overview") }, this.blank, this.strips, this.gateways);
    new ResizeObserver(() => {
      if (this.root.clientWidth && this.root.clientWidth !== this.width) this.build();
    }).observe(this.root);
  }

  show(): void {
    this.build();
  }

  hide(): void {}

  update(change: Change): void {
    if (change.shape || change.alarms) this.build();
    else for (const update of this.updates) update();
  }

  key(event: KeyboardEvent): boolean {
    if (event.key === "/") {
      this.context.go("#/values");
      document.querySelector<HTMLInputElement>(".screen:not([hidden]) input[type=search]")?.focus();
      return true;
    }
    if (!["j", "k", "ArrowDown", "ArrowUp"].includes(event.key)) return false;
    const stops = [...this.strips.querySelectorAll<HTMLElement>("a[href]")].filter((one) => one.offsetParent);
    const at = stops.indexOf(document.activeElement as HTMLElement);
    const next = event.key === "j" || event.key === "ArrowDown" ? at + 1 : at - 1;
    stops[Math.min(stops.length - 1, Math.max(0, next))]?.focus();
    return true;
  }

  private build(): void {
    const { model } = this.context;
    this.width = this.root.clientWidth;
    const focused = (document.activeElement as HTMLElement | null)?.dataset["stop"];
    this.updates = [];
    for (const watch of this.watches.splice(0)) watch.disconnect();
    const devices = [...model.gateways.values()].reduce((n, gateway) => n + gateway.devices.length, 0);
    this.blank.hidden = devices > 0;
    setText(this.blank, !model.loaded ? t("loading") : model.gateways.size ? t("overview.no_devices") : t("overview.no_gateways"));
    const parts: HTMLElement[] = [];
    for (const corridor of new Set([...model.gateways.values()].map((gateway) => gateway.corridor))) {
      for (const { scale, lines } of byScale(linesOf(model, corridor))) {
        if (scale) parts.push(this.axis(scale, corridor));
        for (const line of lines) parts.push(this.strip(line, scale));
      }
    }
    this.strips.replaceChildren(...parts);
    this.gateways.replaceChildren(...this.gatewayTable());
    if (focused) this.root.querySelector<HTMLElement>(`[data-stop="${CSS.escape(focused)}"]`)?.focus();
  }

  /** A strip that is scrolled out of view rests. */
  private strip(line: Line, scale: Scale | null): HTMLElement {
    const updates: Update[] = [];
    const { root } = new Strip(this.context, line, scale, this.width, updates);
    let isSeen = true;
    const refresh = (): void => updates.forEach((update) => update());
    const watch = new IntersectionObserver(
      ([entry]) => {
        const wasSeen = isSeen;
        isSeen = entry?.isIntersecting ?? true;
        if (isSeen && !wasSeen) refresh();
      },
      { root: this.root, rootMargin: "200px" },
    );
    watch.observe(root);
    this.watches.push(watch);
    this.updates.push(() => isSeen && refresh());
    return root;
  }

  private axis(scale: Scale, corridor: string): HTMLElement {
    const track = h("div", { class: "track" });
    for (const km of ticks(scale, this.width)) {
      const label = h("span", { class: "tick" }, String(km));
      label.style.left = percent(km * 1000, scale);
      track.append(label);
    }
    return h("div", { class: "axis", "aria-hidden": "true" }, h("span", { class: "gutter" }, corridor, h("span", { class: "unit" }, "km")), track);
  }

  private gatewayTable(): HTMLElement[] {
    const { model } = this.context;
    if (!model.gateways.size) return [];
    const body = h("tbody");
    for (const gateway of model.gateways.values()) {
      const cells = [h("td"), h("td"), h("td"), h("td"), h("td"), h("td"), h("td")] as const;
      const [state, heard, links, polls, spool, clockCell, version] = cells;
      const marks = h("span", { class: "marks" });
      for (const alarm of gateway.alarms.filter((one) => isOwn(gateway, one) && isActive(one)).sort(byUrgency)) {
        marks.append(h("a", { href: `#/alarms/${encodeURIComponent(`${gateway.id} ${alarm.device}`)}` }, alarmMark(alarm)));
      }
      const name = h("a", { href: `#/values/${encodeURIComponent(gateway.id)}` }, gateway.id);
      const row = h("tr", {}, h("th", { scope: "row" }, name, " ", marks), ...cells);
      const ledger = new LedgerLine(model, gateway, this.opened);
      const second = h("tr", {}, h("td", { colspan: cells.length + 1 }, ledger.element));
      const update = (): void => {
        const isDown = model.isDown(gateway);
        setClass(row, isDown ? "first down" : "first");
        setClass(second, isDown ? "down" : "");
        ledger.update();
        setText(state, isDown ? t("gateway.offline") : t("gateway.online"));
        setText(heard, gateway.heard ? moment(gateway.heard, model.now()) : t("time.unknown"));
        const all = Object.entries(gateway.health.links ?? {});
        const bad = all.filter(([, link]) => link.state && link.state !== "up");
        setText(links, all.length ? `${all.length - bad.length}/${all.length}${bad.length ? ` (${bad.map(([name, link]) => `${name} ${word("link", link.state ?? "")}`).join(", ")})` : ""}` : "\u2013");
        const { polls: p, spool: s, clock: c } = gateway.health;
        setText(polls, p ? `${number(p["late"] ?? 0, 0)} / ${number(p["skipped"] ?? 0, 0)}` : "\u2013");
        setText(spool, s ? `${word("spool", s.state ?? "")}, ${number(s.unsent ?? 0, 0)} / ${number(s.dropped ?? 0, 0)}` : "\u2013");
        setText(clockCell, c ? `${word("clock", c.state ?? "")} ${c.offset_s === undefined ? "" : `${number(c.offset_s * 1000, 1)} ms`}` : "\u2013");
        setText(version, [gateway.status.version, gateway.status.boot === undefined ? "" : `boot ${gateway.status.boot}`].filter(Boolean).join(" · "));
      };
      update();
      this.updates.push(update);
      body.append(row, second);
    }
    const heads = ["gateway.name", "gateway.state", "gateway.heard", "gateway.links", "gateway.polls", "gateway.spool", "gateway.clock", "gateway.version"] as const;
    return [
      h("h2", {}, t("overview.gateways")),
      h("div", { class: "wide" }, h("table", {}, h("thead", {}, h("tr", {}, ...heads.map((code) => h("th", { scope: "col" }, t(code))))), body)),
    ];
  }
}

/** One line of the corridor. */
class Strip {
  readonly root: HTMLElement;
  private readonly alarms = new Map<string, Alarm[]>();
  private readonly layers: HTMLElement[] = [];
  private readonly narrow: boolean;

  constructor(
    private readonly context: Context,
    private readonly line: Line,
    private readonly scale: Scale | null,
    private readonly width: number,
    private readonly updates: Update[],
  ) {
    this.narrow = width < 700;
    for (const { gateway, device } of line.placed) {
      for (const alarm of gateway.alarms) {
        if (alarm.device !== device.name || !isActive(alarm)) continue;
        const id = `${gateway.key}/${alarm.device}/${alarm.tag}`;
        this.alarms.set(id, [...(this.alarms.get(id) ?? []), alarm].sort(byUrgency));
      }
    }
    const body = h("div", { class: "body" });
    const profiled = new Set<Point>();
    if (scale) for (const points of this.profiles()) body.append(this.profile(points, scale, profiled));
    body.append(this.outages());
    body.append(scale && !this.narrow ? this.places(scale, profiled) : this.flow(profiled));
    this.root = h("section", { class: "strip", "aria-label": t("overview.line", { line: line.name || t("overview.no_line") }) }, this.title(), body);
  }

  private title(): HTMLElement {
    const worst = [...this.alarms.values()].flat().sort(byUrgency);
    const name = this.line.name || t("overview.no_line");
    const marks = h("span", { class: "marks" });
    for (const alarm of worst.slice(0, 5)) marks.append(h("a", { href: `#/alarms/${encodeURIComponent(`${alarm.device} ${alarm.tag}`)}` }, alarmMark(alarm)));
    if (worst.length > 5) marks.append(h("span", { class: "muted" }, `+${worst.length - 5}`));
    return h(
      "div",
      { class: "title" },
      h("h2", {}, h("a", { href: `#/values/${encodeURIComponent(name)}`, "data-stop": `line/${name}` }, name)),
      h("span", { class: "muted" }, t("overview.devices", { n: this.line.placed.length })),
      marks,
    );
  }

  /** Quantities that at least three places of the line have: they are compared along it. */
  private profiles(): Point[][] {
    const groups = new Map<string, Point[]>();
    for (const { gateway, device } of this.line.placed) {
      if (device.kp_m === null) continue;
      for (const point of keysOf(gateway, device)) {
        const key = `${point.tag.name} ${point.tag.unit}`;
        groups.set(key, [...(groups.get(key) ?? []), point]);
      }
    }
    return [...groups.values()]
      .filter((points) => new Set(points.map((point) => point.device.kp_m)).size >= 3)
      .sort((a, b) => b.length - a.length)
      .slice(0, PROFILES);
  }

  private profile(points: Point[], scale: Scale, profiled: Set<Point>): HTMLElement {
    const { model } = this.context;
    points.sort((a, b) => (a.device.kp_m as number) - (b.device.kp_m as number));
    const [first] = points as [Point];
    const limits = points.flatMap((point) => Object.values(point.tag.limits));
    const shape = svg("polyline", { class: "course" });
    const normal = svg("polygon", { class: "normal" });
    const chart = svg("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" }, normal, shape);
    const layer = h("div", { class: "layer" });
    this.layers.push(layer);
    const track = h("div", { class: "track plot" }, chart, layer);
    for (const km of ticks(scale, this.width)) {
      const rule = h("span", { class: "rule" });
      rule.style.left = percent(km * 1000, scale);
      track.append(rule);
    }
    const x = (point: Point): number => (1000 * ((point.device.kp_m as number) - scale.from)) / (scale.to - scale.from);
    const trackWidth = this.width - (this.narrow ? 24 : 190);
    let room = -Infinity;
    const dots = points.map((point) => {
      profiled.add(point);
      const alarms = this.alarms.get(point.id);
      const px = (x(point) / 1000) * trackWidth;
      const isLast = px > trackWidth - 48;
      const isLabelled = px - room >= (isLast ? 96 : 50) || alarms !== undefined;
      if (isLabelled) room = px;
      const cell = isLabelled ? new ValueCell(model, point, "value bare") : null;
      const dot = h("div", { class: "dot" }, alarms ? alarmMark(alarms[0] as Alarm) : h("i"), cell ? cell.element : h("a", { class: "ghost", href: trendHref(point), "aria-label": `${point.device.name} ${point.tag.name}` }));
      if (cell) cell.element.dataset["stop"] = point.id;
      setAttribute(dot, "title", `${point.device.name} · KP ${kp(point.device.kp_m)}`);
      dot.style.left = `${x(point) / 10}%`;
      track.append(dot);
      return { point, dot, cell, base: isLast ? "dot end" : "dot" };
    });
    let low = Infinity;
    let high = -Infinity;
    const update = (): void => {
      const values = points.map((point) => point.value).filter(Number.isFinite);
      const ends = [...values, ...limits];
      if (ends.length) {
        // The scale only grows: a line that jumps because its scale moved would be read as an event.
        const span = Math.max(...ends) - Math.min(...ends) || Math.abs(ends[0] as number) || 1;
        // Where no limit bounds the scale the values need air, or they would sit on its edge.
        if (Math.min(...ends) < low) low = Math.min(...ends) - (points.some((point) => lower(point) !== undefined) ? 0.08 : 0.5) * span;
        if (Math.max(...ends) > high) high = Math.max(...ends) + (points.some((point) => upper(point) !== undefined) ? 0.08 : 0.5) * span;
      }
      const y = (value: number): number => 100 - (100 * (value - low)) / (high - low);
      setAttribute(shape, "points", points.filter((point) => Number.isFinite(point.value)).map((point) => `${x(point).toFixed(1)},${y(point.value).toFixed(1)}`).join(" "));
      const tops = points.filter((point) => upper(point) !== undefined).map((point) => `${x(point).toFixed(1)},${y(upper(point) as number).toFixed(1)}`);
      const bottoms = points.filter((point) => lower(point) !== undefined).map((point) => `${x(point).toFixed(1)},${y(lower(point) as number).toFixed(1)}`);
      const right = x(points[points.length - 1] as Point).toFixed(1);
      const left = x(first).toFixed(1);
      if (tops.length || bottoms.length) {
        const roof = tops.length ? tops : [`${left},0`, `${right},0`];
        const floor = bottoms.length ? bottoms : [`${left},100`, `${right},100`];
        setAttribute(normal, "points", [...roof, ...[...floor].reverse()].join(" "));
      }
      for (const { point, dot, cell, base } of dots) {
        const at = Number.isFinite(point.value) ? y(point.value) : 50;
        const place = `translateY(${((at * PLOT) / 100).toFixed(1)}px)`;
        if (dot.style.transform !== place) dot.style.transform = place;
        cell?.update();
        const freshness = model.freshness(point);
        const state = freshness !== "fresh" ? ` ${freshness}` : "";
        const bad = isBad(point.quality) && freshness !== "never" ? " bad" : "";
        setClass(dot, `${base}${state}${bad}${at < (state || bad ? 60 : 40) ? " under" : ""}`);
      }
    };
    update();
    this.updates.push(update);
    return h("div", { class: "lane" }, h("div", { class: "gutter" }, first.tag.name.replaceAll("_", " "), h("span", { class: "unit" }, first.unit)), track);
  }

  /** Places at their km, in as many rows as they need. */
  private places(scale: Scale, profiled: Set<Point>): HTMLElement {
    const track = h("div", { class: "track places" });
    const trackWidth = this.width - 190;
    const lanes: { right: number; cells: HTMLElement[] }[] = [];
    let hidden = 0;
    for (const group of this.grouped(scale, trackWidth)) {
      const [{ device: leader }] = group as [Placed];
      const px = Math.max(0, (((leader.kp_m as number) - scale.from) / (scale.to - scale.from)) * trackWidth);
      const isBare = group.every(({ gateway, device }) => keysOf(gateway, device).every((point) => profiled.has(point)));
      const width = isBare ? NAME : CELL;
      const left = Math.min(px, trackWidth - width);
      let lane = lanes.find((one) => one.right <= left);
      if (!lane) {
        if (lanes.length >= LANES && !this.isAbnormal(group)) {
          hidden += group.length;
          continue;
        }
        lane = { right: 0, cells: [] };
        lanes.push(lane);
      }
      lane.right = left + width + 4;
      const cell = this.cell(group, profiled, true);
      cell.style.left = `${((left / trackWidth) * 100).toFixed(3)}%`;
      cell.style.width = `${width}px`;
      lane.cells.push(cell);
    }
    for (const { cells } of lanes) track.append(h("div", { class: "row-of-places" }, ...cells));
    if (hidden) track.append(h("p", { class: "muted" }, t("overview.more", { n: hidden })));
    return h("div", { class: "lane" }, h("div", { class: "gutter" }), track);
  }

  /** Places one after the other: a line without km-posts, or a small screen. */
  private flow(profiled: Set<Point>): HTMLElement {
    const groups = this.scale ? this.grouped(this.scale, 400) : this.line.placed.map((one) => [one]);
    return h("div", { class: "lane" }, h("div", { class: "gutter" }), h("div", { class: "track flow" }, ...groups.map((group) => this.cell(group, profiled, false))));
  }

  private grouped(scale: Scale, trackWidth: number): Placed[][] {
    const groups: Placed[][] = [];
    let last = -Infinity;
    const metres = (14 * (scale.to - scale.from)) / trackWidth;
    for (const one of this.line.placed) {
      const at = one.device.kp_m ?? scale.from;
      if (at - last < metres) groups[groups.length - 1]?.push(one);
      else {
        groups.push([one]);
        last = at;
      }
    }
    return groups;
  }

  private isAbnormal(group: Placed[]): boolean {
    const { model } = this.context;
    return group.some(({ gateway, device }) => model.outage(gateway, device) !== null || gateway.pointsOf(device).some((point) => this.alarms.has(point.id) || shown(model, point).look !== ""));
  }

  private cell(group: Placed[], profiled: Set<Point>, placed: boolean): HTMLElement {
    const { model } = this.context;
    const [{ device: leader }] = group as [Placed];
    const cell = h("div", { class: placed ? "place" : "place loose" });
    const mood = (): void => {
      const isDown = group.every(({ gateway, device }) => model.outage(gateway, device) !== null);
      cell.classList.toggle("down", isDown);
    };
    mood();
    this.updates.push(mood);
    if (leader.kp_m !== null) cell.append(h("span", { class: "kp" }, `KP ${kp(leader.kp_m)}`));
    for (const { gateway, device } of group) {
      const standing = gateway.alarms.filter((alarm) => alarm.device === device.name && isActive(alarm)).sort(byUrgency);
      const name = h("a", { class: "name", href: `#/values/${encodeURIComponent(device.name)}`, "data-stop": `${gateway.key}/${device.name}` }, device.name);
      const marks = h("span", { class: "marks" });
      for (const alarm of standing.slice(0, 3)) marks.append(alarmMark(alarm));
      cell.append(h("div", { class: standing.some(isUnacknowledged) ? "who loud" : "who" }, name, marks));
      for (const point of keysOf(gateway, device)) {
        if (profiled.has(point) && !this.narrow) continue;
        const value = new ValueCell(model, point);
        value.element.dataset["stop"] = point.id;
        this.updates.push(() => value.update());
        cell.append(h("div", { class: "what" }, h("span", { class: "label" }, point.tag.name.replaceAll("_", " ")), value.element));
      }
    }
    return cell;
  }

  /** A blue-grey band behind everything that cannot be heard, and below the plots its cause and the last contact. */
  private outages(): HTMLElement {
    const { model } = this.context;
    const notes = h("div", { class: "track notes" });
    let drawn = "";
    const update = (): void => {
      const runs = this.runs();
      const key = JSON.stringify(runs);
      if (key === drawn) return;
      drawn = key;
      for (const layer of this.layers) layer.replaceChildren(...runs.map((run) => this.spread(h("div", { class: "band" }), run)));
      notes.replaceChildren(
        ...runs.map((run) => {
          const text = t(`outage.${run.cause}`, { name: run.name, time: moment(run.last ?? NaN, model.now()) });
          const label = h("span", {}, run.cause === "gateway" ? `${run.name}: ${text}` : text);
          const note = this.spread(h("div", { class: "band" }, label), run);
          if (parseFloat(note.style.left) > 60) note.classList.add("end");
          return h("div", { class: "note", role: "note" }, note);
        }),
      );
    };
    update();
    this.updates.push(update);
    return h("div", { class: "lane" }, h("div", { class: "gutter" }), notes);
  }

  /** Neighbours that are silent for the same reason, as one run. */
  private runs(): Run[] {
    const runs: Run[] = [];
    let before: Run | null = null;
    this.line.placed.forEach(({ gateway, device }, i) => {
      const outage = this.context.model.outage(gateway, device);
      if (!outage) {
        before = null;
        return;
      }
      const last = Number.isNaN(outage.last) ? null : outage.last;
      if (before && before.cause === outage.cause && before.name === outage.name) {
        before.to = i;
        if (last !== null) before.last = Math.max(before.last ?? -Infinity, last);
      } else {
        before = { cause: outage.cause, name: outage.name, last, from: i, to: i };
        runs.push(before);
      }
    });
    return runs;
  }

  /** Put a band where its devices stand, reaching half-way to the neighbours that can be heard. */
  private spread(band: HTMLElement, run: Run): HTMLElement {
    const { scale } = this;
    const at = (i: number): number | null => this.line.placed[i]?.device.kp_m ?? null;
    const [from, to] = [at(run.from), at(run.to)];
    if (!scale || from === null || to === null) {
      band.classList.add("whole");
      return band;
    }
    const pad = 0.03 * (scale.to - scale.from);
    const before = at(run.from - 1);
    const after = at(run.to + 1);
    const left = before === null ? scale.from : from - Math.min(pad, (from - before) / 2);
    const right = after === null ? scale.to : to + Math.min(pad, (after - to) / 2);
    band.style.left = percent(left, scale);
    band.style.width = `${((100 * (right - left)) / (scale.to - scale.from)).toFixed(2)}%`;
    return band;
  }
}

function upper(point: Point): number | undefined {
  return point.tag.limits.high ?? point.tag.limits.high_high;
}

function lower(point: Point): number | undefined {
  return point.tag.limits.low ?? point.tag.limits.low_low;
}

/** The values an operator compares: those with limits, else the first. */
function keysOf(gateway: Gateway, device: Device): Point[] {
  const points = gateway.pointsOf(device);
  const limited = points.filter((point) => Object.keys(point.tag.limits).length > 0);
  return (limited.length ? limited : points.slice(0, 1)).slice(0, KEYS);
}

function linesOf(model: Model, corridor: string): Line[] {
  const lines = new Map<string, Placed[]>();
  for (const gateway of model.gateways.values()) {
    if (gateway.corridor !== corridor) continue;
    for (const device of gateway.devices) lines.set(device.line, [...(lines.get(device.line) ?? []), { gateway, device }]);
  }
  return [...lines].map(([name, placed]) => {
    const order = inPlace(placed.map((one) => one.device));
    return { name, placed: placed.sort((a, b) => order.indexOf(a.device) - order.indexOf(b.device)) };
  });
}

/** Lines of one corridor share a scale, so that what is side by side in the field is one above the other here. */
function byScale(lines: Line[]): { scale: Scale | null; lines: Line[] }[] {
  const extents = new Map<Line, Scale>();
  for (const line of lines) {
    const places = line.placed.map((one) => one.device.kp_m).filter((at): at is number => at !== null);
    if (new Set(places).size > 1) extents.set(line, { from: Math.min(...places), to: Math.max(...places) });
  }
  const longest = Math.max(0, ...[...extents.values()].map((one) => one.to - one.from));
  const shared: Line[] = [];
  const out: { scale: Scale | null; lines: Line[] }[] = [];
  const own: { scale: Scale | null; lines: Line[] }[] = [];
  const byName = [...lines].sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const line of byName) {
    const extent = extents.get(line);
    if (!extent) own.push({ scale: null, lines: [line] });
    else if (extent.to - extent.from >= SHARED * longest) shared.push(line);
    else own.push({ scale: rounded(extent), lines: [line] });
  }
  if (shared.length) {
    const all = shared.map((line) => extents.get(line) as Scale);
    out.push({ scale: rounded({ from: Math.min(...all.map((one) => one.from)), to: Math.max(...all.map((one) => one.to)) }), lines: shared });
  }
  return [...out, ...own.sort((a, b) => Number(a.scale === null) - Number(b.scale === null))];
}

function rounded(extent: Scale): Scale {
  const step = niceStep((extent.to - extent.from) / 40);
  return { from: Math.floor(extent.from / step) * step, to: Math.ceil(extent.to / step) * step || extent.from + step };
}

function niceStep(rough: number): number {
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * ([1, 2, 5, 10].find((one) => one * power >= rough) as number);
}

function ticks(scale: Scale, width: number): number[] {
  const span = (scale.to - scale.from) / 1000;
  const step = niceStep(span / Math.max(3, width / 110));
  const out: number[] = [];
  for (let i = Math.ceil(scale.from / 1000 / step); i * step <= scale.to / 1000 + 1e-9; i++) out.push(Number((i * step).toFixed(6)));
  return out;
}

function percent(metres: number, scale: Scale): string {
  return `${((100 * (metres - scale.from)) / (scale.to - scale.from)).toFixed(3)}%`;
}
