// Callbacks: what became of them over time, and those that were refused, to be taken in after all.
import { get, settings } from "./api.js";
import { columns, gains, legend } from "./charts.js";
import { onFilter, onIds } from "./dialog.js";
import { button, empty, foreign, h, link, put, trouble } from "./dom.js";
import { bytes, number, time } from "./format.js";
import { go, href, taskHref } from "./route.js";

const OUTCOMES = ["stored", "duplicate", "stale", "unknown", "refused", "hint"];
const MEANING = { stored: "news, taken in", duplicate: "said before", stale: "too late to matter", unknown: "about no task of this store",
  refused: "a good token, a body that can't be read", hint: "only a reason to ask the provider" };

export function show(ctx) {
  const span = ctx.params.span === "day" ? "day" : "hour";
  const chart = h("section", { class: "panel" }), list = h("section", null, h("div", { class: "skeleton" }));
  put(ctx.root, h("h1", { tabindex: "-1" }, "Callbacks"), chart,
    settings.actions && h("section", { class: "panel" }, h("h2", null, "Replay"),
      h("p", null, "Hands the last event of tasks to the policy again, also of those that succeeded and were delivered."),
      h("div", { class: "acts" }, button("Replay successes of the last hour", () => onFilter("replay", { state: ["succeeded"], since: Date.now() - 36e5 })),
        button("Choose tasks …", () => go(href("tasks", { state: "succeeded,failed,lost" })), { class: "quiet" }))),
    h("h2", null, "Refused callbacks"), list);

  async function drawChart() {
    let stats, history;
    try {
      [stats, history] = await Promise.all([get("stats", null, ctx.signal), get("history", { span }, ctx.signal)]);
    } catch (err) {
      if (err.name !== "AbortError") put(chart, trouble(err, drawChart));
      return;
    }
    const counters = OUTCOMES.map((o) => "callback_" + o);
    const lately = gains(history.samples, OUTCOMES, counters, 48), seen = stats.webhook;
    put(chart, h("div", { class: "panelhead" }, h("h2", null, "What became of them"),
      h("div", { class: "chips", role: "group", "aria-label": "Time" }, ["hour", "day"].map((s) =>
        h("button", { type: "button", class: "chip", "aria-pressed": String(s === span), on: { click: () => go(href("callbacks", { span: s })) } }, "last " + s)))),
    h("p", null, seen.ended
      ? `${number(seen.called)} of ${number(seen.ended)} tasks that ended in this hour and the last had a callback.`
      : "No task has ended in this hour and the last.",
      seen.broken_since && h("b", { class: "warn" }, " Callbacks do not come: results are learned of by polling. See Health.")),
    lately.length ? columns(`Callbacks in the last ${span}`, OUTCOMES, lately)
      : h("p", { class: "dim" }, "The chart begins with this visit: counters are sampled every 15 seconds."),
    legend(OUTCOMES, counters.map((c) => stats.counts[c] || 0)),
    h("details", null, h("summary", null, "What the words mean"), h("dl", { class: "keys" }, OUTCOMES.map((o) => [h("dt", null, o), h("dd", null, MEANING[o])]))));
  }

  async function drawList() {
    let got;
    try {
      got = await get("refused", { below: ctx.params.below, limit: 20 }, ctx.signal);
    } catch (err) {
      if (err.name !== "AbortError") put(list, trouble(err, drawList));
      return;
    }
    if (got.refused.length === 0) {
      put(list, empty("No callback was refused", "Those with a good token and a body that can't be read would be kept here: the newest 256."));
      return;
    }
    if (list.contains(document.activeElement) || list.querySelector("details[open]")) return; // it is being read
    put(list, h("ul", { class: "cards" }, got.refused.map((kept) => h("li", { class: "card" },
      h("div", { class: "panelhead" }, h("b", null, `#${kept.id}`), time(kept.at), link(taskHref(kept.ref), { class: "mono" }, kept.ref),
        h("span", { class: "dim" }, `attempt ${kept.attempt} · ${bytes(kept.size)}`),
        settings.actions && button("Readmit", () => onIds("readmit", [kept.id], [], drawList), { class: "small" })),
      h("p", null, kept.hidden ? h("span", { class: "dim" }, "hidden") : foreign(kept.reason || "")),
      kept.body && h("details", null, h("summary", null, "Body"), h("pre", { tabindex: "0", "aria-label": "Body" }, foreign(kept.body)),
        kept.body.length < kept.size && h("p", { class: "dim" }, "The rest was not kept."))))),
    got.more && link(href("callbacks", { span: ctx.params.span, below: got.refused.at(-1).id }), { class: "button" }, "Older →"));
  }

  drawChart();
  drawList();
  return { refresh: () => { drawChart(); drawList(); } };
}
