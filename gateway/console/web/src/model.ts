/** What the console knows, as columns: the browser's copy of the server's picture, advanced by its steps. */

import { unitSign } from "./format";

export interface Tag {
  name: string;
  unit: string;
  kind: string;
  range: [number, number] | null;
  limits: Partial<Record<"low_low" | "low" | "high" | "high_high", number>>;
  period_s: number;
  decimals?: number | null;
}

export interface Device {
  name: string;
  profile: string;
  asset: string;
  line: string;
  kp_m: number | null;
  link: string;
  strings: Record<string, string>;
  tags: Tag[];
}

export interface Alarm {
  key: string;
  device: string;
  tag: string;
  alarm: string;
  state: string;
  priority: number;
  since: number;
  changed: number;
  value: number | null;
  limit: number | null;
  unit: string;
  text: string;
  line: string;
  kp_m: number | null;
  asset: string;
  by: string;
}

const OWN = "gateway"; // the device of an alarm that a gateway has of itself

/** Whether a gateway speaks of itself: of its disk, or of a broker that refuses. */
export function isOwn(gateway: Gateway, alarm: Alarm): boolean {
  return alarm.device === OWN && !alarm.tag && !gateway.devices.some((device) => device.name === OWN);
}

/** What an alarm is about: a tag, a whole device, or the gateway itself. */
export function placeOf(gateway: Gateway, alarm: Alarm): string {
  if (isOwn(gateway, alarm)) return gateway.id;
  return alarm.tag ? `${alarm.device}/${alarm.tag}` : alarm.device;
}

/** Where more of it is to be seen: the trend of a tag, the values of a device, the gateways. */
export function hrefOf(gateway: Gateway, alarm: Alarm): string {
  if (isOwn(gateway, alarm)) return "#/overview";
  if (!alarm.tag) return `#/values/${encodeURIComponent(alarm.device)}`;
  return `#/trend/${encodeURIComponent(`${gateway.key}/${alarm.device}/${alarm.tag}`)}`;
}

export interface Health {
  links?: Record<string, { state?: string; load?: number; timeouts?: number }>;
  polls?: Record<string, number>;
  spool?: { state?: string; unsent?: number; dropped?: number; bytes?: number };
  clock?: { state?: string; offset_s?: number };
}

/** What one share of ingests, hence one database, has of a gateway; `counts` and `holes` say why frames are not there. */
export interface Ledger {
  share: string;
  ingest: string;
  heard: number;
  complete: number | null;
  waiting: number;
  parked: number;
  counts: Record<string, number>;
  holes: { why: string; boot: number; frames: number; ranges: string }[];
  absent: { device: string; quality: string; samples: number }[];
  absent_samples: number;
}

export interface Part {
  state: string;
  text: string;
  since: number;
}

interface GatewayStep {
  key: string;
  heard?: number;
  catalog?: { corridor: string; site: string; gateway: string; devices: Device[] };
  status?: { state?: string; boot?: number; version?: string; time?: number };
  health?: Health;
  alarms?: Alarm[];
  ledger?: Ledger[];
  rows?: { i: number[]; v: (number | null)[]; a: (number | null)[]; q: number[]; why: Record<string, string> };
}

export interface Step {
  now: number;
  tick: number;
  held?: number;
  delay?: number;
  quality_names?: Record<string, string>;
  console?: { mqtt: Part; store: Part };
  present?: string[];
  gateways?: GatewayStep[];
}

/** One tag of one device: where its value stands in the columns. */
export class Point {
  readonly id: string;
  readonly search: string;
  private magnitude: number;

  constructor(
    readonly gateway: Gateway,
    readonly device: Device,
    readonly tag: Tag,
    readonly row: number,
  ) {
    this.id = `${gateway.key}/${device.name}/${tag.name}`;
    this.search = [gateway.id, gateway.site, device.name, tag.name, tag.unit, device.line, device.asset].join(" ").toLowerCase();
    const ends = [...Object.values(tag.limits), ...(tag.range ?? [])].filter(Number.isFinite);
    this.magnitude = Math.max(0, ...Object.values(tag.limits).map(Math.abs));
    if (!this.magnitude && ends.length) this.magnitude = Math.max(...ends.map(Math.abs));
  }

  /** The unit to show. */
  get unit(): string {
    return unitSign(this.tag.unit);
  }

  get value(): number {
    return this.gateway.value[this.row] ?? NaN;
  }

  get time(): number {
    return this.gateway.time[this.row] ?? NaN;
  }

  get quality(): number {
    return this.gateway.quality[this.row] ?? 0;
  }

  get period(): number {
    return Math.max(this.tag.period_s, 0.5);
  }

  /** What the meter gives; else four significant digits of the largest value seen: few enough to read, and never fewer or more from one step to the next. */
  get decimals(): number {
    if (this.tag.kind === "state") return 0;
    if (this.tag.decimals !== null && this.tag.decimals !== undefined) return Math.min(3, this.tag.decimals);
    const size = Math.abs(this.value);
    if (size > this.magnitude) this.magnitude = size;
    if (!this.magnitude) return 2;
    return Math.min(3, Math.max(0, 3 - Math.floor(Math.log10(this.magnitude))));
  }
}

export type Freshness = "fresh" | "late" | "stale" | "never";

const BAD = 0x80000000;
const COMMUNICATION = new Set([0x80050000, 0x800a0000, 0x80310000]);
const LINK_DOWN = new Set(["down", "away", "lost", "failed", "disconnected", "silent", "dead"]);
const SILENT_MS = 35_000; // three health messages and a half
const SLACK_MS = 350; // a step of the stream and its way here: ours, not the device's

export class Gateway {
  corridor = "";
  site = "";
  id = "";
  devices: Device[] = [];
  points: Point[] = [];
  private byDevice = new Map<Device, Point[]>();
  value = new Float64Array();
  time = new Float64Array();
  quality = new Uint32Array();
  why = new Map<number, string>();
  status: { state?: string; boot?: number; version?: string; time?: number } = {};
  health: Health = {};
  alarms: Alarm[] = [];
  ledger: Ledger[] = [];
  heard = 0;

  constructor(readonly key: string) {
    const [corridor = "", site = "", id = ""] = key.split("/");
    Object.assign(this, { corridor, site, id });
  }

  layOut(devices: Device[]): void {
    this.devices = devices;
    this.points = [];
    this.byDevice.clear();
    for (const device of devices) {
      const first = this.points.length;
      for (const tag of device.tags) this.points.push(new Point(this, device, tag, this.points.length));
      this.byDevice.set(device, this.points.slice(first));
    }
    this.value = new Float64Array(this.points.length).fill(NaN);
    this.time = new Float64Array(this.points.length).fill(NaN);
    this.quality = new Uint32Array(this.points.length);
    this.why.clear();
  }

  pointsOf(device: Device): Point[] {
    return this.byDevice.get(device) ?? [];
  }
}

export interface Change {
  shape: boolean;
  alarms: boolean;
}

/** Why a device cannot be heard; `last` is the server time of the last contact, NaN when there was none. */
export interface Outage {
  cause: "gateway" | "link" | "device";
  name: string;
  last: number;
}

export class Model {
  gateways = new Map<string, Gateway>();
  qualityNames: Record<string, string> = {};
  mqtt: Part = { state: "away", text: "", since: 0 };
  store: Part = { state: "none", text: "", since: 0 };
  delay: number | null = null;
  loaded = false;
  private offset = NaN;

  /** Server time now, Unix ms: right also where this machine's clock is wrong. */
  now(): number {
    return performance.now() + this.offset;
  }

  apply(step: Step): Change {
    const offset = step.now - performance.now();
    // The step that travelled fastest tells best; a jump is a machine that slept.
    if (!(Math.abs(offset - this.offset) < 2000) || offset > this.offset) this.offset = offset;
    else this.offset -= 0.5;
    const change = { shape: false, alarms: false };
    if (step.delay !== undefined) this.delay = step.delay;
    if (step.quality_names) this.qualityNames = step.quality_names;
    if (step.console) ({ mqtt: this.mqtt, store: this.store } = step.console);
    if (step.present) {
      for (const key of this.gateways.keys()) if (!step.present.includes(key)) this.gateways.delete(key);
      change.shape = change.alarms = true;
    }
    for (const one of step.gateways ?? []) this.applyGateway(one, step.now, change);
    this.loaded = true;
    return change;
  }

  private applyGateway(step: GatewayStep, now: number, change: Change): void {
    let gateway = this.gateways.get(step.key);
    if (!gateway) {
      gateway = new Gateway(step.key);
      this.gateways.set(step.key, gateway);
    }
    if (step.catalog) {
      gateway.layOut(step.catalog.devices);
      change.shape = true;
    }
    if (step.heard !== undefined) gateway.heard = step.heard;
    if (step.status) gateway.status = step.status;
    if (step.health) gateway.health = step.health;
    if (step.ledger) gateway.ledger = step.ledger;
    if (step.alarms) {
      gateway.alarms = step.alarms;
      change.alarms = true;
    }
    if (!step.rows) return;
    const { i: rows, v, a, q, why } = step.rows;
    for (let k = 0; k < rows.length; k++) {
      const row = rows[k] as number;
      const age = a[k];
      gateway.value[row] = v[k] ?? NaN;
      gateway.time[row] = age === null || age === undefined ? NaN : now - age;
      gateway.quality[row] = q[k] as number;
      const reason = why[row];
      if (reason) gateway.why.set(row, reason);
      else gateway.why.delete(row);
    }
  }

  *points(): Generator<Point> {
    for (const gateway of this.gateways.values()) yield* gateway.points;
  }

  find(id: string): Point | null {
    const parts = id.split("/");
    const gateway = this.gateways.get(parts.slice(0, 3).join("/"));
    return gateway?.points.find((point) => point.id === id) ?? null;
  }

  qualityName(quality: number): string {
    return this.qualityNames[String(quality)] ?? `0x${quality.toString(16).toUpperCase().padStart(8, "0")}`;
  }

  age(point: Point): number {
    return Math.max(0, this.now() - point.time) / 1000;
  }

  freshness(point: Point): Freshness {
    if (Number.isNaN(point.time)) return "never";
    const age = this.now() - point.time;
    const period = point.period * 1000;
    if (age > 3 * period + SLACK_MS) return "stale";
    return age > 1.5 * period + SLACK_MS ? "late" : "fresh";
  }

  isDown(gateway: Gateway): boolean {
    if (gateway.status.state === "offline") return true;
    return this.mqtt.state === "connected" && gateway.heard > 0 && this.now() - gateway.heard > SILENT_MS;
  }

  /** A device that answers with exceptions is bad, and not silent: only what it should send and does not is. */
  private isSilent(point: Point): boolean {
    return COMMUNICATION.has(point.quality) || (!isBad(point.quality) && this.freshness(point) === "stale");
  }

  outage(gateway: Gateway, device: Device): Outage | null {
    if (this.isDown(gateway)) return { cause: "gateway", name: gateway.id, last: gateway.heard || NaN };
    const state = gateway.health.links?.[device.link]?.state;
    const points = gateway.pointsOf(device);
    const last = Math.max(-Infinity, ...points.map((point) => point.time).filter((time) => !Number.isNaN(time)));
    const contact = Number.isFinite(last) ? last : NaN;
    if (state && LINK_DOWN.has(state)) return { cause: "link", name: device.link, last: contact };
    return points.length > 0 && points.every((point) => this.isSilent(point)) ? { cause: "device", name: device.name, last: contact } : null;
  }

  /** Links as [up, all], from the gateways' health; those of a gateway that is gone count as down. */
  links(): [number, number] {
    let up = 0;
    let all = 0;
    for (const gateway of this.gateways.values()) {
      for (const link of Object.values(gateway.health.links ?? {})) {
        all += 1;
        if (!this.isDown(gateway) && !LINK_DOWN.has(link.state ?? "")) up += 1;
      }
    }
    return [up, all];
  }

  *alarms(): Generator<[Gateway, Alarm]> {
    for (const gateway of this.gateways.values()) for (const alarm of gateway.alarms) yield [gateway, alarm];
  }
}

export function isBad(quality: number): boolean {
  return quality >= BAD;
}

/** A condition that is there now and that nobody has set aside: it counts and marks its place. */
export function isActive(alarm: Alarm): boolean {
  return alarm.state === "unacked" || alarm.state === "acked" || alarm.state === "latched" || alarm.state === "rtn_unacked";
}

export function isUnacknowledged(alarm: Alarm): boolean {
  return alarm.state === "unacked" || alarm.state === "rtn_unacked";
}
