/** What is said of alarms and qualities: from codes, in the operator's language; the gateway's own text where there is no code. */

import { number, unitSign } from "./format";
import type { Code } from "./i18n";
import { has, t, word } from "./i18n";
import type { Alarm } from "./model";

const LIMITS = new Set(["low_low", "low", "high", "high_high"]);

/** The value and the limit of an alarm as figures of the same precision; empty where it has none. */
export function figures(alarm: Alarm): { value: string; limit: string } {
  const size = Math.max(Math.abs(alarm.value ?? 0), Math.abs(alarm.limit ?? 0));
  const decimals = size ? Math.min(3, Math.max(0, 3 - Math.floor(Math.log10(size)))) : 0;
  const figure = (one: number | null): string => (one === null ? "" : number(one, decimals));
  return { value: figure(alarm.value), limit: figure(alarm.limit) };
}

/** What is the matter, without the name of the condition. */
export function alarmText(alarm: Alarm): string {
  const { value, limit } = figures(alarm);
  const code = `alarm.${alarm.alarm}`;
  if (!has(code) || (LIMITS.has(alarm.alarm) && !(value && limit))) return alarm.text;
  const unit = unitSign(alarm.unit);
  return t(code as Code, { value: `${value} ${unit}`.trim(), limit: `${limit} ${unit}`.trim() });
}

/** An alarm in a sentence: the condition, and what is the matter. */
export function alarmSentence(alarm: Alarm): string {
  return `${word("condition", alarm.alarm)}: ${alarmText(alarm)}`;
}

/** A quality for people; its OPC UA name where the catalogue does not know it. */
export function qualityWord(name: string): string {
  return word("quality", name);
}
