/** The one way a number is shown: value, unit, quality and age, and what each of them does to its looks. */

import { h, setAttribute, setClass, setText } from "./dom";
import { age, number } from "./format";
import { t } from "./i18n";
import type { Model, Point } from "./model";
import { isBad } from "./model";
import { qualityWord } from "./words";

export interface Shown {
  text: string;
  look: string;
  /** Its OPC UA name, for machines, and its word in the operator's language. */
  quality: string;
  qualityText: string;
  ageS: number;
  age: string;
}

const WAITING = 0x80320000; // BadWaitingForInitialData: nothing is wrong yet

/** What to show for a tag now. `look` is a list of classes: late, stale, never, bad, uncertain. */
export function shown(model: Model, point: Point): Shown {
  const freshness = model.freshness(point);
  const quality = point.quality;
  const ageS = model.age(point);
  const looks: string[] = freshness === "fresh" ? [] : [freshness];
  if (isBad(quality) && quality !== WAITING) looks.push("bad");
  else if (freshness !== "never" && quality) looks.push("uncertain");
  return {
    text: number(point.value, point.decimals),
    look: looks.join(" "),
    quality: model.qualityName(quality),
    qualityText: qualityWord(model.qualityName(quality)),
    ageS,
    age: age(ageS),
  };
}

export function trendHref(point: Point): string {
  return `#/trend/${encodeURIComponent(point.id)}`;
}

/** A number that opens its trend. Its age shows once it is late; its quality once it is not good. */
export class ValueCell {
  readonly element: HTMLAnchorElement;
  private readonly figure = h("span", { class: "figure" });
  private readonly since = h("span", { class: "since" });
  private known = "";

  constructor(
    private readonly model: Model,
    readonly point: Point,
    private readonly base: "value" | "value bare" = "value",
  ) {
    const unit = base === "value" && h("span", { class: "unit" }, point.unit);
    this.element = h("a", { class: base, href: trendHref(point), "data-unit": point.unit }, this.figure, unit, this.since);
    this.update();
  }

  /** Bring it up to date; nothing is touched when nothing about the tag has changed. */
  update(): void {
    const { point } = this;
    const freshness = this.model.freshness(point);
    const known = `${point.time} ${point.quality} ${freshness} ${Math.floor(this.model.age(point) / (freshness === "fresh" ? 5 : 1))}`;
    if (known === this.known) return;
    this.known = known;
    const now = shown(this.model, point);
    setText(this.figure, now.text);
    setText(this.since, now.look.includes("late") || now.look.includes("stale") || now.look.includes("bad") ? now.age : "");
    setClass(this.element, now.look ? `${this.base} ${now.look}` : this.base);
    setAttribute(this.element, "data-quality", now.quality);
    setAttribute(this.element, "data-age", Number.isFinite(now.ageS) ? now.ageS.toFixed(0) : "");
    const { device, tag } = this.point;
    const parameters = { device: device.name, tag: tag.name, value: now.text, unit: this.point.unit, quality: now.qualityText, age: now.age };
    const text = t("value.label", parameters);
    if (this.base === "value") setAttribute(this.element, "title", text);
    setAttribute(this.element, "aria-label", text);
  }
}
