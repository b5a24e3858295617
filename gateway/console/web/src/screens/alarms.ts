/** The alarm list: standing alarms stay, the newest unacknowledged first, and nothing moves under the pointer. */

import { h, setClass, setText } from "../dom";
import { age, kp, moment, unitSign } from "../format";
import { t, word } from "../i18n";
import { mark, priorityOf } from "../marks";
import type { Alarm, Change, Gateway } from "../model";
import { hrefOf, isUnacknowledged, placeOf } from "../model";
import type { Context, Screen } from "../screen";
import { recall, remember } from "../settings";
import { alarmSentence, figures } from "../words";

interface Entry {
  id: string;
  gateway: Gateway;
  alarm: Alarm;
}

interface Answer {
  gateway: string;
  key: string;
  ok: boolean;
  code: string;
  text: string;
}

const RANK: Record<string, number> = { unacked: 0, rtn_unacked: 1, latched: 2, acked: 3 };
const HOLD_MS = 4_000; // after a key or a touch the order rests this long

class Row {
  readonly element: HTMLTableRowElement;
  readonly box = h("input", { type: "checkbox" });
  private readonly age = h("td", { class: "n age", "data-name": t("column.age") });
  private readonly state = h("td", { class: "state", "data-name": t("column.state") });
  private readonly value = h("td", { class: "n measured", "data-name": t("column.value_limit") });
  private readonly shape = h("td", { class: "priority" });
  private readonly text = h("td", { class: "text" });
  private readonly time = h("td", { class: "n when", "data-name": t("column.time") });
  private drawn = "";

  constructor(
    readonly entry: Entry,
    private readonly list: Alarms,
  ) {
    const { alarm, gateway } = entry;
    const name = placeOf(gateway, alarm);
    this.box.setAttribute("aria-label", t("alarms.select", { name, alarm: alarm.alarm }));
    this.element = h(
      "tr",
      { tabindex: "-1", "data-key": entry.id },
      h("td", { class: "pick" }, this.box),
      this.shape,
      this.time,
      h("td", { class: "where n", "data-name": "KP" }, kp(alarm.kp_m)),
      h("td", { class: "line", "data-name": t("column.line") }, alarm.line),
      h("td", { class: "asset", "data-name": t("column.asset") }, alarm.asset),
      h("td", { class: "tag" }, h("a", { href: hrefOf(gateway, alarm) }, name)),
      this.text,
      this.value,
      this.age,
      this.state,
    );
    this.box.addEventListener("change", () => this.list.selectionChanged());
    this.element.addEventListener("focusin", () => this.list.setCurrent(this));
  }

  update(entry: Entry | null, now: number, note: string): void {
    const alarm = entry?.alarm ?? this.entry.alarm;
    if (entry) this.entry.alarm = entry.alarm;
    const priority = priorityOf(alarm);
    const unacknowledged = entry !== null && isUnacknowledged(alarm);
    const drawn = `${priority}${unacknowledged}`;
    if (drawn !== this.drawn) {
      this.drawn = drawn;
      this.shape.replaceChildren(mark(priority, { unacknowledged }), h("span", {}, t(`priority.${priority as 1 | 2 | 3 | 4}`)));
    }
    setClass(this.element, `${entry ? alarm.state : "gone"}${this.box.checked ? " picked" : ""}`);
    setText(this.time, moment(alarm.since / 1e6, now));
    setText(this.text, alarmSentence(alarm));
    setText(this.value, measured(alarm));
    setText(this.age, age(Math.max(0, now - alarm.since / 1e6) / 1000));
    const by = alarm.by && alarm.state !== "unacked" ? ` · ${alarm.by}` : "";
    setText(this.state, note || (entry ? word("state", alarm.state) + by : t("alarms.gone")));
    this.state.classList.toggle("note", note !== "");
  }
}

function measured(alarm: Alarm): string {
  const { value, limit } = figures(alarm);
  return value || limit ? `${value || "\u2013"}${limit && ` / ${limit}`} ${unitSign(alarm.unit)}` : "";
}

export class Alarms implements Screen {
  readonly root: HTMLElement;
  private readonly body = h("tbody");
  private readonly filter = h("input", { type: "search", placeholder: t("alarms.filter"), "aria-label": t("alarms.filter"), spellcheck: "false" });
  private readonly line = h("select", { "aria-label": t("column.line") });
  private readonly from = h("input", { type: "number", class: "km", placeholder: t("alarms.km_from"), "aria-label": t("alarms.km_from"), step: "any" });
  private readonly to = h("input", { type: "number", class: "km", placeholder: t("alarms.km_to"), "aria-label": t("alarms.km_to"), step: "any" });
  private readonly by = h("input", { type: "text", class: "by", maxlength: "64", "aria-label": t("alarms.by"), placeholder: t("alarms.by"), autocomplete: "username", spellcheck: "false" });
  private readonly acknowledge = h("button", { type: "button", class: "act", onclick: () => void this.send() });
  private readonly all = h("input", { type: "checkbox", "aria-label": t("alarms.select_all") });
  private readonly held = h("p", { class: "held", hidden: true });
  private readonly blank = h("p", { class: "blank" });
  private readonly table: HTMLTableElement;
  private readonly rows = new Map<string, Row>();
  private readonly notes = new Map<string, { text: string; until: number }>();
  private order: Row[] = [];
  private current: Row | null = null;
  private hovered = false;
  private heldUntil = 0;
  private lines = "";

  constructor(private readonly context: Context) {
    this.by.value = recall("operator") ?? "";
    this.by.addEventListener("change", () => remember("operator", this.by.value.trim()));
    this.by.addEventListener("input", () => this.by.removeAttribute("aria-invalid"));
    this.by.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      remember("operator", this.by.value.trim());
      void this.send();
    });
    for (const input of [this.filter, this.line, this.from, this.to]) input.addEventListener("input", () => this.refresh(true));
    this.all.addEventListener("change", () => {
      for (const row of this.order) row.box.checked = this.all.checked && isUnacknowledged(row.entry.alarm);
      this.selectionChanged();
    });
    const names: [string, string][] = [
      ["pick", ""],
      ["priority", t("column.priority")],
      ["when n", t("column.time")],
      ["where n", "KP"],
      ["line", t("column.line")],
      ["asset", t("column.asset")],
      ["tag", t("column.tag")],
      ["text", t("column.text")],
      ["measured n", t("column.value_limit")],
      ["age n", t("column.age")],
      ["state", t("column.state")],
    ];
    const heads = h("tr");
    for (const [name, label] of names) heads.append(h("th", { class: name, scope: "col" }, name === "pick" ? this.all : label));
    this.table = h("table", { class: "alarms" }, h("caption", { class: "unseen" }, t("screen.alarms")), h("thead", {}, heads), this.body);
    this.body.addEventListener("pointerenter", (event) => (this.hovered = event.pointerType === "mouse"));
    this.body.addEventListener("pointerleave", () => {
      this.hovered = false;
      this.refresh(false);
    });
    this.body.addEventListener("pointerdown", () => this.hold());
    this.root = h(
      "section",
      { class: "screen", "aria-label": t("screen.alarms") },
      h("div", { class: "tools" }, this.filter, this.line, this.from, this.to, h("span", { class: "grow" }), this.by, this.acknowledge),
      this.held,
      h("div", { class: "scroll", tabindex: "-1" }, this.table, this.blank),
    );
    this.selectionChanged();
  }

  show(argument: string): void {
    if (argument) this.filter.value = argument;
    this.refresh(true);
  }

  hide(): void {
    this.hovered = false;
  }

  update(_change: Change): void {
    this.refresh(false);
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
        return true;
      case "a":
        void this.send();
        return true;
      case " ":
      case "x":
        if (!this.current) return false;
        this.hold();
        this.current.box.checked = !this.current.box.checked;
        this.selectionChanged();
        return true;
      case "Enter":
        if (!this.current || event.target !== this.current.element) return false;
        this.context.go(hrefOf(this.current.entry.gateway, this.current.entry.alarm));
        return true;
      case "Escape":
        if (this.picked().length) {
          for (const row of this.rows.values()) row.box.checked = false;
          this.selectionChanged();
          return true;
        }
        if (this.filter.value) {
          this.filter.value = "";
          this.refresh(true);
          return true;
        }
        return false;
      default:
        return false;
    }
  }

  setCurrent(row: Row): void {
    this.current = row;
    this.hold();
    this.selectionChanged();
  }

  selectionChanged(): void {
    const picked = this.picked();
    const n = picked.length || (this.current ? 1 : 0);
    setText(this.acknowledge, picked.length ? t("alarms.acknowledge_n", { n: picked.length }) : t("alarms.acknowledge"));
    this.acknowledge.disabled = n === 0;
    for (const row of this.rows.values()) row.element.classList.toggle("picked", row.box.checked);
  }

  private picked(): Row[] {
    return this.order.filter((row) => row.box.checked);
  }

  private hold(): void {
    this.heldUntil = performance.now() + HOLD_MS;
  }

  private step(by: number): boolean {
    if (!this.order.length) return true;
    const at = this.current ? this.order.indexOf(this.current) : -1;
    const next = this.order[Math.min(this.order.length - 1, Math.max(0, at + by))];
    next?.element.focus();
    next?.element.scrollIntoView({ block: "nearest" });
    return true;
  }

  private wanted(): Map<string, Entry> {
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const from = this.from.value === "" ? -Infinity : Number(this.from.value) * 1000;
    const to = this.to.value === "" ? Infinity : Number(this.to.value) * 1000;
    const found = new Map<string, Entry>();
    for (const [gateway, alarm] of this.context.model.alarms()) {
      if (this.line.value && alarm.line !== this.line.value) continue;
      if ((from > -Infinity || to < Infinity) && (alarm.kp_m === null || alarm.kp_m < from || alarm.kp_m > to)) continue;
      const text = [gateway.id, gateway.site, alarm.device, alarm.tag, alarm.line, alarm.asset, alarm.text, alarm.alarm, alarmSentence(alarm)].join(" ").toLowerCase();
      if (!words.every((one) => text.includes(one))) continue;
      const id = `${gateway.key}/${alarm.key}`;
      found.set(id, { id, gateway, alarm });
    }
    return found;
  }

  private refresh(sort: boolean): void {
    const { model } = this.context;
    const now = model.now();
    const wanted = this.wanted();
    const isHeld = !sort && (this.hovered || performance.now() < this.heldUntil);
    let added = 0;
    for (const [id, entry] of wanted) {
      if (this.rows.has(id)) continue;
      const row = new Row(entry, this);
      this.rows.set(id, row);
      this.order.push(row);
      added += 1;
    }
    if (!isHeld) {
      for (const [id, row] of this.rows) {
        if (wanted.has(id)) continue;
        this.rows.delete(id);
        if (this.current === row) this.current = null;
      }
      this.order = [...this.rows.values()].sort((a, b) => {
        const [x, y] = [wanted.get(a.entry.id) as Entry, wanted.get(b.entry.id) as Entry];
        return (RANK[x.alarm.state] ?? 4) - (RANK[y.alarm.state] ?? 4) || y.alarm.since - x.alarm.since || (a.entry.id < b.entry.id ? -1 : 1);
      });
    }
    for (const row of this.order) {
      const note = this.notes.get(row.entry.id);
      if (note && note.until < performance.now()) this.notes.delete(row.entry.id);
      row.update(wanted.get(row.entry.id) ?? null, now, this.notes.get(row.entry.id)?.text ?? "");
    }
    if (!isHeld || added) this.place();
    const waiting = isHeld && this.order.some((row) => !wanted.has(row.entry.id));
    this.held.hidden = !(isHeld && (added || waiting || !this.held.hidden));
    setText(this.held, t("alarms.held"));
    this.drawLines();
    const total = [...model.alarms()].length;
    this.table.hidden = this.order.length === 0;
    this.blank.hidden = this.order.length > 0;
    setText(this.blank, total ? t("alarms.none_match", { n: total }) : model.loaded ? t("alarms.none") : t("loading"));
    this.selectionChanged();
  }

  /** Put the rows in order, touching only those that stand elsewhere: focus and scroll position survive. */
  private place(): void {
    let at: Element | null = this.body.firstElementChild;
    for (const row of this.order) {
      if (row.element === at) at = at.nextElementSibling;
      else this.body.insertBefore(row.element, at);
    }
    while (at) {
      const next: Element | null = at.nextElementSibling;
      at.remove();
      at = next;
    }
  }

  private drawLines(): void {
    const lines = [...new Set([...this.context.model.points()].map((point) => point.device.line).filter(Boolean))].sort();
    if (lines.join() === this.lines) return;
    this.lines = lines.join();
    const before = this.line.value;
    this.line.replaceChildren(h("option", { value: "" }, t("alarms.all_lines")), ...lines.map((one) => h("option", { value: one }, one)));
    this.line.value = lines.includes(before) ? before : "";
  }

  private async send(): Promise<void> {
    const picked = this.picked();
    const rows = picked.length ? picked : this.current ? [this.current] : [];
    if (!rows.length) {
      this.context.announce(t("alarms.pick_first"));
      return;
    }
    const by = this.by.value.trim();
    if (!by) {
      this.by.setAttribute("aria-invalid", "true");
      this.by.focus();
      this.context.announce(t("alarms.name_first"));
      return;
    }
    if (document.activeElement === this.by) rows[0]?.element.focus();
    this.hold();
    for (const row of rows) this.note(row.entry.id, t("alarms.asking"), 15_000);
    this.refresh(false);
    const body = { by, alarms: rows.map((row) => ({ gateway: row.entry.gateway.key, key: row.entry.alarm.key })) };
    let answers: Answer[];
    try {
      const response = await fetch("api/acknowledge", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
      const answer = (await response.json()) as { answers?: Answer[]; code?: string };
      answers = answer.answers ?? body.alarms.map((one) => ({ ...one, ok: false, code: answer.code ?? "no_answer", text: "" }));
    } catch {
      answers = body.alarms.map((one) => ({ ...one, ok: false, code: "server_away", text: "" }));
    }
    for (const [i, answer] of answers.entries()) {
      const row = rows[i] as Row;
      const id = row.entry.id;
      if (answer.ok) {
        this.notes.delete(id);
        row.box.checked = false;
      } else {
        this.note(id, this.reason(answer), 30_000);
      }
    }
    const refused = answers.filter((answer) => !answer.ok);
    this.context.announce(
      refused.length
        ? t("alarms.refused_n", { n: refused.length, reason: this.reason(refused[0] as Answer) })
        : t("alarms.done_n", { n: answers.length }),
    );
    this.refresh(false);
  }

  private reason(answer: Answer): string {
    return answer.code === "refused" ? t("answer.refused", { text: answer.text }) : word("answer", answer.code);
  }

  private note(id: string, text: string, ms: number): void {
    this.notes.set(id, { text, until: performance.now() + ms });
  }
}
