/** Numbers, ages, times and places as an operator reads them. */

import { language, t } from "./i18n";

const MINUS = "\u2212";
const THIN = "\u202f";
const formats = new Map<number, Intl.NumberFormat>();

export function number(value: number, decimals: number): string {
  if (!Number.isFinite(value)) return "\u2013";
  let format = formats.get(decimals);
  if (!format) {
    format = new Intl.NumberFormat(language, { minimumFractionDigits: decimals, maximumFractionDigits: decimals, useGrouping: false });
    formats.set(decimals, format);
  }
  const text = format.format(value);
  const digits = text.replace(/^-/, "").split(/[.,]/)[0] as string;
  const grouped = digits.length > 4 ? digits.replace(/\B(?=(\d{3})+$)/g, THIN) : digits;
  return (text.startsWith("-") ? MINUS : "") + grouped + text.replace(/^-?\d+/, "");
}

const SIGNS: Record<string, string> = { degC: "\u00b0C", deg: "\u00b0", m3: "m\u00b3", "1": "" };

/** A unit as it is printed; on the wire units are ASCII. */
export function unitSign(unit: string): string {
  return SIGNS[unit] ?? unit.replace(/m3\b/, "m\u00b3").replace(/m2\b/, "m\u00b2");
}

export function age(seconds: number): string {
  if (!Number.isFinite(seconds)) return "\u2013";
  if (seconds < 100) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 100) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${String(minutes % 60).padStart(2, "0")}`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

const pad = (n: number): string => String(n).padStart(2, "0");

export function clock(ms: number): string {
  if (!Number.isFinite(ms)) return "--:--:--";
  const date = new Date(ms);
  return `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
}

/** The time of day, and the day where it is not today. */
export function moment(ms: number, now: number): string {
  if (!Number.isFinite(ms)) return t("time.unknown");
  const date = new Date(ms);
  return date.toDateString() === new Date(now).toDateString() ? clock(ms) : `${day(date)} ${clock(ms)}`;
}

export function day(date: Date): string {
  return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
}

export function kp(metres: number | null): string {
  if (metres === null) return "";
  const size = Math.abs(Math.round(metres));
  return `${metres < 0 ? MINUS : ""}${Math.floor(size / 1000)}+${String(size % 1000).padStart(3, "0")}`;
}
