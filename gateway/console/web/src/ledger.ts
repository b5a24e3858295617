/** What of a gateway is in the database: one line, and behind it which frames and samples are not there, and why. */

import { h, setClass, setText } from "./dom";
import { moment, number } from "./format";
import type { Code } from "./i18n";
import { has, t, word } from "./i18n";
import type { Gateway, Ledger, Model } from "./model";

const SILENT_MS = 60_000; // two signs of life of an ingest

interface Part {
  text: string;
  look: "" | "warn";
}

function frames(ledger: Ledger, why: string): number {
  return ledger.counts[why] ?? 0;
}

function isSilent(model: Model, ledger: Ledger): boolean {
  return model.mqtt.state === "connected" && model.now() - ledger.heard > SILENT_MS;
}

/** Of several databases the one that is worst off; where they are alike always the same one. */
export function worst(model: Model, ledgers: Ledger[]): Ledger | null {
  const rank = (one: Ledger): number => (isSilent(model, one) ? 8 : 0) + (frames(one, "lost") ? 4 : 0) + (one.waiting ? 2 : 0) + (Object.keys(one.counts).length ? 1 : 0);
  return ledgers.reduce<Ledger | null>((found, one) => (found && rank(found) >= rank(one) ? found : one), null);
}

/** How a ledger stands, in a few words. */
function partsOf(model: Model, gateway: Gateway, ledger: Ledger): Part[] {
  const parts: Part[] = [];
  const add = (code: Code, n: number, look: Part["look"] = ""): void => {
    if (n) parts.push({ text: t(code, { n: number(n, 0) }), look });
  };
  const isAway = isSilent(model, ledger);
  const complete = ledger.complete === null ? t("ledger.complete_unknown") : t("ledger.complete", { time: moment(ledger.complete, model.now()) });
  parts.push({ text: complete, look: "" });
  if (isAway) parts.push({ text: t("ledger.silent", { time: moment(ledger.heard, model.now()) }), look: "warn" });
  const lost = frames(ledger, "lost");
  if (!isAway && !lost && !ledger.waiting) parts.push({ text: t("ledger.none_missing"), look: "" });
  add("ledger.waiting", ledger.waiting);
  add(isAway || model.isDown(gateway) ? "ledger.lost_unasked" : "ledger.lost", lost, "warn");
  add("ledger.absent", ledger.absent_samples);
  for (const why of Object.keys(ledger.counts)) {
    if (why !== "lost") add(has(`gone.${why}`) ? (`gone.${why}` as Code) : "ledger.gone", frames(ledger, why));
  }
  add("ledger.parked", ledger.parked);
  return parts;
}

/** The frames and samples that are not there, a line each. */
function detailsOf(ledger: Ledger): string[] {
  const lines = ledger.holes.map((hole) => t("ledger.hole", { why: word("hole", hole.why), n: number(hole.frames, 0), boot: hole.boot, ranges: hole.ranges }));
  lines.push(...ledger.absent.map((one) => t("ledger.absence", { n: number(one.samples, 0), device: one.device, why: word("absent", one.quality) })));
  const rest = ledger.absent_samples - ledger.absent.reduce((sum, one) => sum + one.samples, 0);
  if (rest > 0) lines.push(t("ledger.absence_rest", { n: number(rest, 0) }));
  return lines;
}

/** The line of one gateway; what it says more is on hover, and opens where there is more. */
export class LedgerLine {
  readonly element = h("div", { class: "ledger" });
  private readonly line = h("summary");
  private readonly details = h("details", {}, this.line);
  private readonly plain = h("span", { class: "plain" });
  private readonly more = h("ul");
  private drawn = "";

  constructor(
    private readonly model: Model,
    private readonly gateway: Gateway,
    opened: Set<string>,
  ) {
    this.details.append(this.more);
    this.details.open = opened.has(gateway.key);
    this.details.addEventListener("toggle", () => (this.details.open ? opened.add(gateway.key) : opened.delete(gateway.key)));
    this.line.dataset["stop"] = `ledger/${gateway.key}`;
    this.element.append(this.plain, this.details);
    this.update();
  }

  update(): void {
    const { model, gateway } = this;
    const found = worst(model, gateway.ledger);
    const several = gateway.ledger.length > 1;
    const parts: Part[] = found ? partsOf(model, gateway, found) : [{ text: t("ledger.none"), look: "" }];
    const details = gateway.ledger.flatMap((one) => {
      const mine = detailsOf(one);
      if (!several) return mine;
      return [t("ledger.share", { share: one.share, text: partsOf(model, gateway, one).map((part) => part.text).join(" \u00b7 ") }), ...mine];
    });
    const name = several && found ? found.share : "";
    const drawn = JSON.stringify([name, parts, details]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    const isOpenable = details.length > 0;
    this.plain.hidden = isOpenable;
    this.details.hidden = !isOpenable;
    const shown = parts.map((part) => h("span", { class: part.look ? `part ${part.look}` : "part" }, part.text));
    if (name) shown.unshift(h("span", { class: "part" }, `${name}:`));
    this.line.replaceChildren(...(isOpenable ? shown : []));
    this.plain.replaceChildren(...(isOpenable ? [] : shown));
    this.element.title = details.join("\n");
    while (this.more.children.length > details.length) this.more.lastElementChild?.remove();
    details.forEach((text, i) => {
      const item = this.more.children[i] as HTMLElement | undefined;
      if (item) setText(item, text);
      else this.more.append(h("li", {}, text));
    });
    setClass(this.element, found ? "ledger" : "ledger muted");
  }
}
