// Health: what a person would have to know, at a glance; the doctor's verdict on demand.
import { doctor, get } from "./api.js";
import { finishing } from "./charts.js";
import { badge, button, foreign, h, link, put, trouble } from "./dom.js";
import { bytes, duration, number, time } from "./format.js";
import { href } from "./route.js";

function tile(label, value, note, level, address) {
  const inner = [h("div", { class: "label" }, label), h("div", { class: "value" }, value), note && h("div", { class: "dim" }, note)];
  return h("li", { class: "tile " + (level || "") }, address ? link(address, null, inner) : inner);
}

function tiles(stats) {
  const { webhook: seen, now } = stats, missed = seen.ended ? (seen.ended - seen.called) / seen.ended : null;
  const open = ["queued", "submitting", "ambiguous", "pending"].reduce((sum, s) => sum + stats.tasks[s], 0);
  const lag = stats.event_due && stats.event_due < now ? now - stats.event_due : 0;
  const swept = stats.sweep.last_at, ago = swept ? now - swept : null;
  return h("ul", { class: "tiles" },
    tile("Missed callbacks", missed === null ? "–" : `${Math.round(missed * 100)} %`,
      seen.broken_since ? ["broken since ", time(seen.broken_since)] : seen.ended ? `of ${number(seen.ended)} that ended in two hours` : "no task ended in two hours",
      seen.broken_since ? "bad" : missed > 0.2 ? "warn" : "good", href("callbacks")),
    tile("Oldest unresolved", stats.oldest_open ? duration(now - stats.oldest_open) : "none", `${number(open)} without an end`,
      stats.oldest_open && now - stats.oldest_open > 36e5 ? "warn" : "good",
      href("tasks", { state: "queued,submitting,ambiguous,pending", until: now - stats.oldest_open > 36e5 ? "1h" : "" })),
    tile("Last reconcile", swept ? time(swept) : "never",
      swept ? `took ${duration(stats.sweep.elapsed_ms)}` : "schedule mjhook-reconcile: see its manual", ago === null || ago > 6e5 ? "bad" : ago > 18e4 ? "warn" : "good"),
    tile("Delivery lag", lag ? duration(lag) : "none", `${number(stats.events)} events wait`,
      lag > 3e5 ? "bad" : lag > 6e4 ? "warn" : "good", href("events", { show: "waiting" })),
    tile("Buried events", number(stats.buried),
      stats.buried ? "given up: kick them when it is mended" : "nothing was given up", stats.buried ? "bad" : "good", href("events", { show: "buried" })),
    tile("Ready to send", number(stats.ready), "queued, wait for a slot", "", href("tasks", { state: "queued" })),
    tile("Store", bytes(stats.bytes_used), stats.bytes_mapped ? `${bytes(stats.bytes_mapped)} reserved` : null, ""));
}

const LEVEL = { ok: "succeeded", warn: "ambiguous", fail: "failed" };

export function show(ctx) {
  const body = h("div", null, h("div", { class: "skeleton" })), verdict = h("div", { role: "status" });
  const ask = button("Ask the doctor", async () => {
    ask.disabled = true;
    put(verdict, h("p", { class: "dim" }, "It looks at the configuration, the store, hook_url and the provider. That takes some seconds …"));
    try {
      const { findings } = await doctor();
      const bad = findings.filter((f) => f.status === "fail").length, warn = findings.filter((f) => f.status === "warn").length;
      put(verdict, h("p", { class: "strong" }, bad ? `${bad} failed, ${warn} to know` : warn ? `All works, ${warn} to know` : "All is well"),
        h("ul", { class: "findings" }, findings.map((f) => h("li", null, badge(LEVEL[f.status], f.status),
          h("div", null, h("b", null, f.check), " ", foreign(f.message), f.advice && h("p", { class: "advice" }, "→ ", foreign(f.advice)))))));
    } catch (err) {
      put(verdict, h("p", { role: "alert", class: "warn" }, foreign(err.message)));
    }
    ask.disabled = false;
    ask.focus();
  }, { class: "primary" });
  put(ctx.root, h("h1", { tabindex: "-1" }, "Health"), body,
    h("section", { class: "panel" }, h("div", { class: "panelhead" }, h("h2", null, "Doctor"), ask), verdict));
  async function draw() {
    try {
      const stats = await get("stats", null, ctx.signal);
      const focused = body.contains(document.activeElement) && document.activeElement.getAttribute("href");
      paint(stats);
      if (focused) body.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
    } catch (err) {
      if (err.name !== "AbortError") put(body, trouble(err, draw));
    }
  }
  function paint(stats) {
    put(body, tiles(stats), h("section", { class: "panel" }, h("h2", null, "Time to finish"),
      ["fast", "relaxed"].map((mode) => finishing(mode, stats.finish[mode]))));
  }
  draw();
  return { refresh: draw };
}
