// Numbers, durations and times for people: local, with the exact time on hover.
import { h } from "./dom.js";

const count = new Intl.NumberFormat();
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });

export const number = (n) => count.format(n);
export const plural = (n, noun) => `${number(n)} ${noun}${n === 1 ? "" : "s"}`;

export function duration(ms) {
  const s = Math.max(ms, 0) / 1000;
  if (s < 10) return `${Math.round(s * 10) / 10} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit++; }
  return `${unit ? n.toFixed(1).replace(".0", "") : n} ${units[unit]}`;
}

let ahead = 0; // how far the server's clock is from the browser's
export const setNow = (now) => { if (now) ahead = now - Date.now(); };
export const now = () => Date.now() + ahead;

export function relative(ms) {
  const away = ms - now();
  if (Math.abs(away) < 2000) return "now";
  return away < 0 ? `${duration(-away)} ago` : `in ${duration(away)}`;
}

export const exactly = (ms) => exact.format(new Date(ms));
const short = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
export const clock = (ms) => short.format(new Date(ms));
export const briefly = (ms) => day.format(new Date(ms));

// A time that keeps itself up to date.
export function time(ms) {
  if (!ms) return null;
  return h("time", { datetime: new Date(ms).toISOString(), title: exactly(ms), "data-ms": ms }, relative(ms));
}

setInterval(() => {
  for (const node of document.querySelectorAll("time[data-ms]")) {
    const text = relative(Number(node.dataset.ms));
    if (node.textContent !== text) node.textContent = text;
  }
}, 5000);

// "24h", "7d", a date or milliseconds, as in the address, to milliseconds.
const UNITS = { s: 1e3, m: 6e4, h: 36e5, d: 864e5, w: 6048e5 };
export function moment(text) {
  const ago = /^(\d+)([smhdw])$/.exec(text || "");
  if (ago) return Math.max(0, Math.round(now() - ago[1] * UNITS[ago[2]]));
  if (/^\d+$/.test(text || "")) return Number(text);
  const at = Date.parse(text || "");
  return Number.isNaN(at) ? undefined : at;
}

// JSON text with line breaks. The text is never parsed: so no number loses a digit.
export function pretty(text) {
  let out = "", depth = 0, quoted = false;
  const line = () => "\n" + "  ".repeat(depth);
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (quoted) {
      out += c;
      if (c === "\\") out += text[++i] ?? "";
      else if (c === '"') quoted = false;
    } else if (c === '"') { quoted = true; out += c; }
    else if (c === "{" || c === "[") {
      const close = c === "{" ? "}" : "]";
      let next = i + 1;
      while (/\s/.test(text[next] ?? "")) next++;
      if (text[next] === close) { out += c + close; i = next; }
      else { depth++; out += c + line(); }
    } else if (c === "}" || c === "]") { depth--; out += line() + c; }
    else if (c === ",") out += c + line();
    else if (c === ":") out += ": ";
    else if (!/\s/.test(c)) out += c;
  }
  return out;
}
