/** One catalogue of messages: a code and its parameters give a sentence in the operator's language. */

import de from "./messages/de.json";
import en from "./messages/en.json";
import { recall, remember } from "./settings";

export type Code = keyof typeof en;
export type Language = "en" | "de";
export const LANGUAGES: readonly Language[] = ["en", "de"];

const CATALOGUES: Record<Language, Record<Code, string>> = { en, de };

function choose(): Language {
  const kept = recall("language");
  if (kept === "en" || kept === "de") return kept;
  return navigator.language.toLowerCase().startsWith("de") ? "de" : "en";
}

export const language: Language = choose();
document.documentElement.lang = language;

export function setLanguage(next: Language): void {
  remember("language", next);
  location.reload();
}

export function t(code: Code, parameters: Record<string, string | number> = {}): string {
  return CATALOGUES[language][code].replace(/\{(\w+)\}/g, (whole, name: string) => String(parameters[name] ?? whole));
}

/** Whether the catalogue has a message. */
export function has(code: string): boolean {
  return code in en;
}

/** The message `prefix.name`, or the name itself where the catalogue has none (a word of a newer gateway). */
export function word(prefix: string, name: string): string {
  const code = `${prefix}.${name}`;
  return has(code) ? t(code as Code) : name;
}
