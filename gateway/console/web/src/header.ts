/** The header: time and delay, gateways, links, alarms by priority, the console's own connections, where to go. */

import { h, setAttribute, setClass, setText } from "./dom";
import { clock, moment, number } from "./format";
import type { Language } from "./i18n";
import { LANGUAGES, language, setLanguage, t } from "./i18n";
import { mark, priorityOf } from "./marks";
import type { Model } from "./model";
import { isActive, isUnacknowledged } from "./model";
import { recall, remember } from "./settings";
import type { Stream } from "./stream";

export const SCREENS = ["overview", "values", "alarms", "trend"] as const;
export type ScreenName = (typeof SCREENS)[number];

export class Header {
  readonly root: HTMLElement;
  private readonly time = h("span", { class: "clock" });
  private readonly delay = h("span", { class: "muted" });
  private readonly gateways = h("b");
  private readonly links = h("b");
  private readonly linksItem: HTMLElement;
  private readonly counts = new Map<number, { item: HTMLElement; text: HTMLElement; shape: SVGSVGElement }>();
  private readonly broker = h("span", { class: "part" });
  private readonly store = h("span", { class: "part" });
  private readonly tabs = new Map<ScreenName, HTMLAnchorElement>();
  private readonly notice = h("p", { class: "notice", role: "alert", hidden: true });
  private readonly theme: HTMLButtonElement;

  constructor(
    private readonly model: Model,
    private readonly stream: Stream,
    onHelp: () => void,
  ) {
    const alarms = h("a", { class: "counts", href: "#/alarms", "aria-label": t("header.alarms") });
    for (const priority of [1, 2, 3, 4]) {
      const text = h("b");
      const shape = mark(priority);
      const item = h("span", { class: "count" }, shape, text);
      this.counts.set(priority, { item, text, shape });
      alarms.append(item);
    }
    const nav = h("nav", { "aria-label": t("header.screens") });
    for (const name of SCREENS) {
      const tab = h("a", { href: `#/${name}`, "data-screen": name }, t(`screen.${name}`));
      this.tabs.set(name, tab);
      nav.append(tab);
    }
    this.linksItem = h("span", { class: "item" }, h("span", { class: "label" }, t("header.links")), " ", this.links);
    this.theme = h("button", { type: "button", class: "quiet", onclick: () => this.nextTheme() });
    const languages = h("select", { class: "quiet", "aria-label": t("header.language"), onchange: (e: Event) => setLanguage((e.target as HTMLSelectElement).value as Language) });
    for (const one of LANGUAGES) languages.append(h("option", { value: one, selected: one === language }, one.toUpperCase()));
    const state = h(
      "div",
      { class: "state" },
      h("span", { class: "item" }, this.time, " ", this.delay),
      h("span", { class: "item" }, h("span", { class: "label" }, t("header.gateways")), " ", this.gateways),
      this.linksItem,
      alarms,
      h("span", { class: "parts" }, this.broker, this.store),
    );
    const tools = h("div", { class: "tools" }, this.theme, languages, h("button", { type: "button", class: "quiet", onclick: onHelp }, t("header.help")));
    this.root = h("header", {}, h("div", { class: "bar" }, h("span", { class: "brand" }, "CORRIDOR"), state, nav, tools), this.notice);
    this.applyTheme(recall("theme") ?? "auto");
  }

  select(name: ScreenName): void {
    for (const [one, tab] of this.tabs) setAttribute(tab, "aria-current", one === name ? "page" : null);
  }

  update(): void {
    const { model, stream } = this;
    setText(this.time, model.loaded ? clock(model.now()) : "--:--:--");
    setAttribute(this.time, "title", t("header.time"));
    const delay = model.delay === null ? null : (model.delay + stream.lag) / 1000;
    setText(this.delay, stream.connected && delay !== null ? `+${number(delay, 1)} s` : "");
    setAttribute(this.delay, "title", t("header.delay"));
    const all = [...model.gateways.values()];
    const up = all.filter((gateway) => !model.isDown(gateway)).length;
    setText(this.gateways, `${up}/${all.length}`);
    setClass(this.gateways, up < all.length ? "short" : "");
    const [linksUp, links] = model.links();
    setText(this.links, `${linksUp}/${links}`);
    setClass(this.links, linksUp < links ? "short" : "");
    this.linksItem.hidden = links === 0;
    const standing = [...model.alarms()].map(([, alarm]) => alarm).filter(isActive);
    for (const [priority, { item, text, shape }] of this.counts) {
      const mine = standing.filter((alarm) => priorityOf(alarm) === priority);
      setText(text, String(mine.length));
      setClass(item, mine.length ? "count" : "count none");
      setAttribute(shape, "class", `mark p${priority}${mine.some(isUnacknowledged) ? " unacknowledged" : ""}`);
      setAttribute(item, "title", t("header.count", { n: mine.length, priority: t(`priority.${priority as 1 | 2 | 3 | 4}`) }));
    }
    const mqttUp = model.mqtt.state === "connected";
    setText(this.broker, mqttUp ? t("header.broker_ok") : t("header.broker_away"));
    setAttribute(this.broker, "title", t("header.since", { time: moment(model.mqtt.since, model.now()) }));
    setClass(this.broker, mqttUp || !model.loaded ? "part" : "part short");
    setText(this.store, t(`header.store_${model.store.state === "ok" ? "ok" : model.store.state === "none" ? "none" : "away"}`));
    setAttribute(this.store, "title", model.store.text || null);
    setClass(this.store, model.store.state === "away" ? "part short" : "part");
    const notice = this.noticeText();
    if (this.notice.textContent !== notice) this.notice.textContent = notice;
    this.notice.hidden = notice === "";
  }

  private noticeText(): string {
    const { model, stream } = this;
    if (!stream.connected) {
      if (!model.loaded) return "";
      return t("notice.server", { time: clock(stream.since) });
    }
    if (model.mqtt.state !== "connected") return t("notice.broker", { time: moment(model.mqtt.since, model.now()), text: model.mqtt.text });
    return "";
  }

  private nextTheme(): void {
    const order = ["auto", "light", "dark"];
    const next = order[(order.indexOf(recall("theme") ?? "auto") + 1) % order.length] as string;
    remember("theme", next);
    this.applyTheme(next);
  }

  private applyTheme(theme: string): void {
    if (theme === "light" || theme === "dark") document.documentElement.dataset["theme"] = theme;
    else delete document.documentElement.dataset["theme"];
    setText(this.theme, t(`theme.${theme === "light" || theme === "dark" ? theme : "auto"}`));
    setAttribute(this.theme, "aria-label", t("theme.label", { theme: this.theme.textContent ?? "" }));
    window.dispatchEvent(new Event("themechange"));
  }
}
