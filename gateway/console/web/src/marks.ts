/** The priority marks: one shape, one colour and one figure each, so that none of the three has to be seen alone. */

import { svg } from "./dom";
import { t, word } from "./i18n";
import type { Alarm } from "./model";
import { isUnacknowledged } from "./model";
import { alarmSentence } from "./words";

const SHAPES: Record<number, string> = {
  1: "M2.5 2.5h13v13h-13z",
  2: "M9 1.5L17 16H1z",
  3: "M9 1L17 9L9 17L1 9z",
  4: "M9 2a7 7 0 1 0 .01 0z",
};

/** Priorities outside 1 to 4 are shown as diagnostics rather than not at all. */
export function priorityOf(alarm: Alarm): number {
  return alarm.priority >= 1 && alarm.priority <= 3 ? alarm.priority : 4;
}

export function mark(priority: number, options: { unacknowledged?: boolean; label?: string } = {}): SVGSVGElement {
  const figure = svg("text", { x: 9, y: priority === 2 ? 14.2 : 12.8, "text-anchor": "middle" });
  figure.textContent = String(priority);
  const named = options.label !== undefined;
  return svg(
    "svg",
    {
      viewBox: "0 0 18 18",
      class: `mark p${priority}${options.unacknowledged ? " unacknowledged" : ""}`,
      role: named ? "img" : undefined,
      "aria-label": options.label,
      "aria-hidden": named ? undefined : "true",
    },
    svg("path", { d: SHAPES[priority] ?? SHAPES[4] }),
    figure,
  );
}

export function alarmMark(alarm: Alarm): SVGSVGElement {
  const priority = priorityOf(alarm);
  const label = `${t("priority.label", { n: priority })}, ${word("state", alarm.state)}: ${alarmSentence(alarm)}`;
  return mark(priority, { unacknowledged: isUnacknowledged(alarm), label });
}

/** Most urgent first: by priority, then the unacknowledged, then the newest. */
export function byUrgency(a: Alarm, b: Alarm): number {
  return priorityOf(a) - priorityOf(b) || Number(isUnacknowledged(b)) - Number(isUnacknowledged(a)) || b.since - a.since;
}
