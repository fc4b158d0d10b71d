/** Putting text on the page: always as text, never as markup, whoever it came from. */

export function el<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as T;
}

export function make<K extends keyof HTMLElementTagNameMap>(name: K, text = "", className = ""): HTMLElementTagNameMap[K] {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** Sets a text, only if it is another one: what is read aloud is not read again. */
export function say(id: string, text: string): void {
  const target = el(id);
  if (target.textContent !== text) target.textContent = text;
}

/** Replaces the items of a list, and hides the list and its title when there are none. */
export function fill(id: string, items: { text: string; className?: string }[], title?: string): void {
  const list = el(id);
  list.replaceChildren(...items.map((item) => make("li", item.text, item.className)));
  list.hidden = items.length === 0;
  if (title) el(title).hidden = items.length === 0;
}

export function chip(id: string, text: string, tone: "" | "good" | "warn" | "bad"): void {
  say(id, text);
  el(id).className = tone ? `chip ${tone}` : "chip";
}

export function clock(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const minutes = Math.floor(whole / 60);
  const two = (n: number): string => String(n).padStart(2, "0");
  return minutes >= 60 ? `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** A date as people here write it. */
export function day(iso: string): string {
  const date = new Date(iso);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });
}

/** Text from outside, without characters that turn the direction of the line or do not show. */
export function outside(text: string | null | undefined): string {
  return (text ?? "").replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g, " ").trim();
}
