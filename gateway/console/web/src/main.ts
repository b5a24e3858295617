/** The console in the browser: one model, four screens, a header and a keyboard. */

import { h, setText } from "./dom";
import type { ScreenName } from "./header";
import { Header, SCREENS } from "./header";
import type { Code } from "./i18n";
import { t } from "./i18n";
import { alarmMark } from "./marks";
import type { Alarm, Change, Gateway, Step } from "./model";
import { Model, isUnacknowledged, placeOf } from "./model";
import { age, kp } from "./format";
import type { Context, Screen } from "./screen";
import { Alarms } from "./screens/alarms";
import { Overview } from "./screens/overview";
import { Trend } from "./screens/trend";
import { Values } from "./screens/values";
import { Stream } from "./stream";
import { alarmSentence } from "./words";
import "./style.css";

const CLOCK_MS = 500; // ages and the clock move also when nothing arrives
const CHORD_MS = 1_500;
const KEYS: [string, Code][] = [
  ["g o", "key.overview"],
  ["g v", "key.values"],
  ["g a", "key.alarms"],
  ["g t", "key.trend"],
  ["j  k", "key.move"],
  ["Enter", "key.open"],
  ["x", "key.select"],
  ["a", "key.acknowledge"],
  ["/", "key.search"],
  ["[  ]", "key.window"],
  [",  .  n", "key.shift"],
  ["\u2190  \u2192", "key.cursor"],
  ["?", "key.help"],
  ["Esc", "key.back"],
];

const model = new Model();
let pending: Change = { shape: false, alarms: false };
let isDue = false;
let chord = -Infinity;
let current: ScreenName = "overview";
let ahead: string | null = null; // the hash that go() has shown before its hashchange came

const stream = new Stream(
  (step: Step) => {
    const change = model.apply(step);
    pending.shape ||= change.shape;
    pending.alarms ||= change.alarms;
    schedule();
  },
  () => schedule(),
);

const live = h("div", { class: "unseen", role: "status", "aria-live": "polite" });
const toast = h("p", { class: "toast", hidden: true });
let toastTimer = 0;
const context: Context = {
  model,
  stream,
  announce(text) {
    setText(live, text);
    setText(toast, text);
    toast.hidden = false;
    clearTimeout(toastTimer);
    toastTimer = window.setTimeout(() => (toast.hidden = true), 8_000);
  },
  go(hash) {
    location.hash = hash;
    ahead = location.hash;
    route(); // now: hashchange comes later than the next key
  },
};

const help = h("dialog", { class: "help", "aria-label": t("help.title") });
const keys = h("table");
for (const [key, code] of KEYS) keys.append(h("tr", {}, h("th", { scope: "row" }, h("kbd", {}, key)), h("td", {}, t(code))));
const looks = h("table");
for (const look of ["late", "stale", "bad", "uncertain"] as const) {
  looks.append(h("tr", {}, h("th", {}, h("span", { class: `value ${look}` }, h("span", { class: "figure" }, "52.14"), h("span", { class: "unit" }, "bar"))), h("td", {}, t(`look.${look}`))));
}
help.append(
  h("h2", {}, t("help.title")),
  keys,
  h("h2", {}, t("help.looks")),
  looks,
  h("button", { type: "button", class: "act", onclick: () => help.close() }, t("help.close")),
);

const header = new Header(model, stream, () => help.showModal());
const screens: Record<ScreenName, Screen> = {
  overview: new Overview(context),
  values: new Values(context),
  alarms: new Alarms(context),
  trend: new Trend(context),
};
const main = h("main", { id: "main" });
for (const name of SCREENS) {
  screens[name].root.hidden = true;
  main.append(screens[name].root);
}
const newest = h("a", { class: "newest", href: "#/alarms", hidden: true });
document.body.append(h("a", { class: "skip", href: "#main" }, t("skip")), header.root, main, newest, live, toast, help);

function route(): void {
  const [, name = "", ...rest] = location.hash.split("/");
  const next = (SCREENS as readonly string[]).includes(name) ? (name as ScreenName) : "overview";
  if (next !== current || screens[next].root.hidden) {
    screens[current].hide();
    screens[current].root.hidden = true;
    screens[next].root.hidden = false;
    current = next;
  }
  header.select(next);
  document.title = `${t(`screen.${next}`)} – Corridor`;
  document.body.dataset["screen"] = next;
  screens[next].show(rest.map(safeDecode).join("/"));
  schedule();
}

function safeDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function schedule(): void {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    const change = pending;
    pending = { shape: false, alarms: false };
    header.update();
    screens[current].update(change);
    showNewest();
  });
}

/** The newest alarm that nobody has acknowledged stands at the foot of every screen but the alarm list. */
function showNewest(): void {
  let found: Alarm | null = null;
  let where: Gateway | null = null;
  let n = 0;
  for (const [gateway, alarm] of model.alarms()) {
    if (!isUnacknowledged(alarm)) continue;
    n += 1;
    if (!found || alarm.since > found.since) [where, found] = [gateway, alarm];
  }
  newest.hidden = found === null || current === "alarms";
  if (!found || !where || newest.hidden) return;
  const id = `${where.key} ${found.key} ${found.state} ${n}`;
  if (newest.dataset["id"] !== id) {
    newest.dataset["id"] = id;
    const place = [found.line, found.kp_m === null ? "" : `KP ${kp(found.kp_m)}`, placeOf(where, found)].filter(Boolean).join(" · ");
    newest.replaceChildren(
      alarmMark(found),
      h("b", {}, alarmSentence(found)),
      h("span", { class: "muted" }, place),
      h("span", { class: "age" }),
      h("span", { class: "muted more" }, n > 1 ? t("newest.more", { n: n - 1 }) : ""),
    );
  }
  const since = newest.querySelector(".age");
  if (since) setText(since, age(Math.max(0, model.now() - found.since / 1e6) / 1000));
}

const GO: Record<string, ScreenName> = { o: "overview", v: "values", a: "alarms", t: "trend" };

function onKey(event: KeyboardEvent): void {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  const target = event.target as HTMLElement;
  const isTyping = target.matches("input:not([type=checkbox]), select, textarea");
  if (isTyping) {
    if (event.key === "Escape") target.blur();
    return;
  }
  const isChord = performance.now() - chord < CHORD_MS;
  chord = -Infinity;
  if (isChord && GO[event.key]) {
    context.go(`#/${GO[event.key]}`);
    event.preventDefault();
  } else if (event.key === "g") {
    chord = performance.now();
  } else if (event.key === "?") {
    help.showModal();
    event.preventDefault();
  } else if (screens[current].key(event)) {
    event.preventDefault();
  } else if (event.key === "Escape") {
    if (history.length > 1 && current !== "overview") history.back();
  } else if (event.key === "a") {
    context.go("#/alarms");
  }
}

window.addEventListener("hashchange", () => {
  if (location.hash !== ahead) route();
  ahead = null;
});
document.addEventListener("keydown", onKey);
window.setInterval(schedule, CLOCK_MS);
route();
