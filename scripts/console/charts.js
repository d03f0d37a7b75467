// Small charts, drawn as SVG: what one shows is in its label, and in words beside it.
import { h, svg } from "./dom.js";
import { briefly, clock, duration, number } from "./format.js";

const H = 150, LEFT = 34, BOTTOM = 20;
let W = 640; // as wide as there is room, so that letters keep their size

function frame(label, max, children) {
  const lines = (max < 2 ? [0, 1] : [0, 0.5, 1]).map((share) => {
    const y = 8 + (H - BOTTOM - 8) * (1 - share);
    return [svg("line", { x1: LEFT, x2: W, y1: y, y2: y, class: "grid" }),
      svg("text", { x: LEFT - 6, y: y + 4, class: "axis end" }, number(Math.round(max * share)))];
  });
  return svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "chart", role: "img", "aria-label": label }, lines, children);
}

// Columns, each a list of numbers that stand on each other.
export function columns(label, names, list) {
  W = Math.max(280, Math.min(1100, document.getElementById("main").clientWidth - 60));
  const max = Math.max(1, ...list.map((c) => c.values.reduce((a, b) => a + b, 0)));
  const step = (W - LEFT) / Math.max(list.length, 1), high = H - BOTTOM - 8, wide = Math.max(1, Math.min(step * 0.8, 56));
  const bars = list.map((column, i) => {
    let y = H - BOTTOM;
    return svg("g", null, svg("title", null, `${column.label}: ${names.map((n, k) => `${column.values[k]} ${n}`).join(", ")}`), column.values.map((value, k) => {
      const height = (value / max) * high;
      y -= height;
      return height > 0 ? svg("rect", { x: LEFT + (i + 0.5) * step - wide / 2, y, width: wide, height, class: "bar " + names[k] }) : null;
    }));
  });
  const ticks = list.length ? [0, Math.floor(list.length / 2), list.length - 1].filter((v, i, all) => all.indexOf(v) === i).map((i, n, all) =>
    svg("text", { x: LEFT + (i + 0.5) * step, y: H - 5,
      class: "axis " + (all.length < 2 ? "middle" : n === 0 ? "start" : n === all.length - 1 ? "end" : "middle") },
    list[i].tick ?? list[i].label)) : null;
  return frame(label, max, [bars, ticks]);
}

export function legend(names, totals) {
  return h("ul", { class: "legend" }, names.map((name, i) => h("li", null, h("span", { class: "dot " + name }), `${name} `, h("b", null, number(totals[i])))));
}

// How long tasks took: a histogram, and where half and nearly all of them had ended.
export function finishing(mode, finish) {
  if (!finish.n) return h("p", { class: "dim" }, `No ${mode} task has ended yet.`);
  const first = finish.buckets.findIndex((b) => b.n), last = finish.buckets.findLastIndex((b) => b.n);
  const shown = finish.buckets.slice(Math.max(first - 1, 0), Math.min(last + 2, finish.buckets.length));
  const name = (b) => (b.le_ms ? `up to ${duration(b.le_ms)}` : "longer");
  return h("figure", { class: "finish" },
    h("figcaption", null, h("b", null, mode), ` · half within ${duration(finish.p50_ms)}, 95 of 100 within ${duration(finish.p95_ms)} · `
      + `${number(finish.n)} tasks`),
    columns(`Time to finish, ${mode}: half within ${duration(finish.p50_ms)}, 95 of 100 within ${duration(finish.p95_ms)}`, [mode],
      shown.map((b) => ({ label: name(b), tick: b.le_ms ? duration(b.le_ms) : "more", values: [b.n] }))));
}

// What a counter gained between two samples.
export function gains(samples, names, counters, groups) {
  const steps = [];
  for (let i = 1; i < samples.length; i++)
    steps.push({ at: samples[i].at, values: counters.map((c) => Math.max(0, (samples[i].counts[c] || 0) - (samples[i - 1].counts[c] || 0))) });
  const per = Math.max(1, Math.ceil(steps.length / groups)), list = [];
  for (let i = 0; i < steps.length; i += per) {
    const group = steps.slice(i, i + per);
    list.push({ label: briefly(group.at(-1).at), tick: clock(group.at(-1).at), values: counters.map((_, k) => group.reduce((sum, s) => sum + s.values[k], 0)) });
  }
  return list;
}
