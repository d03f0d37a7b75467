// Events: those that wait, fail or are buried; kicked and buried one by one or by filter.
import { get, settings } from "./api.js";
import { onFilter, onIds } from "./dialog.js";
import { badge, button, empty, foreign, h, link, pager, put, trouble } from "./dom.js";
import { filterChips, filterForm, filterOf, focusFilter } from "./filter.js";
import { number, relative, time } from "./format.js";
import { Rows } from "./list.js";
import * as live from "./live.js";
import { go, href, taskHref } from "./route.js";

const LIMIT = 50, ROUNDS = 8;
const TABS = [["", "all", {}], ["waiting", "waiting", { waiting: true }],
  ["failing", "failing", { waiting: true, failed: true }], ["buried", "buried", { buried: true }]];
const HELP = {
  "": "An event is a fact for the policy. It is handed out until its handler returns.",
  waiting: "Not handed out yet, or to be tried again.",
  failing: "The handler has failed at least once; the event is tried again with growing pauses.",
  buried: "Given up after 20 tries or by hand. It is kept, and its task with it, until it is kicked.",
};

function fate(event, now) {
  if (event.buried) return "buried";
  if (event.leased && event.next_at > now) return "being handled";
  return event.next_at <= now ? "due" : relative(event.next_at);
}

function row(event, now) {
  const last = event.errors.at(-1);
  return h("tr", { "data-row": event.event_id, "data-href": taskHref(event.ref) },
    settings.actions && h("td", { class: "pick" }, h("input", { type: "checkbox", tabindex: "-1", "aria-label": `Select event ${event.event_id}` })),
    h("td", { class: "state" }, badge(event.buried ? "buried" : event.errors.length ? "failing" : "waiting")),
    h("td", { class: "prompt" }, link(taskHref(event.ref), { class: "mono", tabindex: "-1" }, event.event_id), " ", badge(event.type),
      last && h("div", { class: "why clamp" }, last.message ? foreign(last.message) : "failed")),
    h("td", { class: "num" }, String(event.tries)), h("td", { class: "when" }, fate(event, now)), h("td", { class: "when" }, time(event.created_at)));
}

export function show(ctx) {
  const { params } = ctx;
  const tab = TABS.find(([name]) => name === (params.show || "")) || TABS[0];
  const filter = { ...filterOf(params), ...tab[2] };
  const rows = new Rows(() => toolbar());
  const bar = h("div", { class: "toolbar" }), body = h("div", { class: "listing" }, h("div", { class: "skeleton" }));
  const tabs = h("div", { class: "chips states", role: "group", "aria-label": "Events" });
  let page = null;

  function drawTabs() {
    const last = live.state.last;
    const counts = { "": last && last.events + last.buried, waiting: last?.events, buried: last?.buried };
    put(tabs, ...TABS.map(([name, label]) => h("button", { type: "button", class: "chip " + label, "aria-pressed": String(name === tab[0]),
      on: { click: () => go(href("events", { ...params, show: name, after: "" })) } }, label,
    counts[name] === undefined ? "" : h("span", { class: "n" }, number(counts[name])))));
  }

  put(ctx.root, h("h1", { class: "unseen", tabindex: "-1" }, "Events"), tabs, h("p", { class: "dim note" }, HELP[tab[0]]),
    filterForm("events", params), filterChips("events", params) || "", bar, body);

  function toolbar() {
    const n = rows.chosen.size;
    const done = () => { rows.clear(); draw(); };
    const kick = button("Kick", () => (n ? onIds("kick", [...rows.chosen.keys()], [], done) : onFilter("kick", filter, draw)));
    const bury = button("Bury", () => (n ? onIds("bury", [...rows.chosen.keys()], [], done) : onFilter("bury", filter, draw)), { class: "risky" });
    put(bar, h("span", { class: "total", role: "status" }, page ? `${number(page.events.length)}${page.more ? " shown, there are more" : " shown"}` : ""),
      settings.actions ? h("div", { class: "acts", role: "group", "aria-label": "Actions" },
        h("span", { class: "what" }, n ? `${number(n)} selected:` : "All that match:"), kick, tab[0] !== "buried" && bury) : "",
      pager(params.after && href("events", { ...params, after: "" }), page?.more && href("events", { ...params, after: page.more }), ["← First", "Next →"]));
  }

  async function load() {
    const wanted = { ...filter, after: params.after, limit: LIMIT };
    for (const name of ["waiting", "failed", "buried"]) if (wanted[name]) wanted[name] = "1";
    let got = await get("events", wanted, ctx.signal);
    for (let round = 1; round < ROUNDS && got.events.length < LIMIT && got.more; round++) {
      const next = await get("events", { ...wanted, after: got.more, limit: LIMIT - got.events.length }, ctx.signal);
      got = { ...next, events: [...got.events, ...next.events] };
    }
    return got;
  }

  async function draw() {
    try {
      page = await load();
    } catch (err) {
      if (err.name !== "AbortError") put(body, trouble(err, draw));
      return;
    }
    const focused = rows.hasFocus();
    if (page.events.length === 0) {
      put(body, tab[0] === "buried" ? empty("No event is buried", "Nothing was given up.")
        : empty("No such event waits", "What was delivered is not listed; a task's story has it, and Replay hands it out again."));
    } else {
      put(body, h("table", { class: "events" }, h("thead", null, h("tr", null,
        settings.actions && h("th", { class: "pick", scope: "col" }, h("input", { type: "checkbox", "aria-label": "Select all on this page",
          on: { change: (e) => rows.chooseAll(e.target.checked) } })),
        [["Status", "state"], ["Event and last error", "prompt"], ["Tries", "num"], ["Next try", "when"], ["Stored", "when"]]
          .map(([t, c]) => h("th", { scope: "col", class: c }, t)))),
      h("tbody", null, page.events.map((event) => row(event, page.now)))));
      rows.settle(focused);
    }
    drawTabs();
    toolbar();
  }

  drawTabs();
  toolbar();
  draw();
  return { refresh: () => { if (!params.after) draw(); }, key: (event) => rows.key(event),
    focusSearch: () => focusFilter(ctx.root) };
}
