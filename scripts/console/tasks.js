// Tasks: a filter, a page of rows, actions on the chosen ones or on all that the filter picks.
import { get, settings } from "./api.js";
import { onFilter, onIds, labelOf } from "./dialog.js";
import { badge, button, empty, foreign, h, link, pager, put, trouble } from "./dom.js";
import { filterChips, filterForm, filterOf, focusFilter, isFiltered, stateChips, updateCounts } from "./filter.js";
import { number, time } from "./format.js";
import { Rows } from "./list.js";
import * as live from "./live.js";
import { go, href, taskHref } from "./route.js";

const LIMIT = 50, ROUNDS = 8;
export const ACTIONS = ["cancel", "resubmit", "refresh", "replay"];

// A page; a narrow filter may take several reads until it is full.
async function load(params, signal, looking) {
  const filter = { ...filterOf(params), before: params.before, after: params.after, limit: LIMIT };
  let page = await get("tasks", filter, signal);
  for (let round = 1; round < ROUNDS && page.tasks.length < LIMIT && !params.after && page.older; round++) {
    looking();
    const next = await get("tasks", { ...filter, before: page.older, limit: LIMIT - page.tasks.length }, signal);
    page = { tasks: [...page.tasks, ...next.tasks], older: next.older, newer: page.newer, now: next.now };
  }
  return page;
}

function row(task) {
  const prompt = task.hidden ? h("span", { class: "dim" }, "hidden") : foreign(task.prompt);
  return h("tr", { "data-row": task.ref, "data-href": taskHref(task.ref), "data-state": task.state },
    settings.actions && h("td", { class: "pick" }, h("input", { type: "checkbox", tabindex: "-1", "aria-label": `Select task ${task.ref}` })),
    h("td", { class: "state" }, badge(task.state), task.late && h("span", { class: "dim" }, " late")),
    h("td", { class: "prompt" }, link(taskHref(task.ref), { tabindex: "-1", class: "clamp" }, prompt, task.prompt_cut && "…"),
      task.error?.message && task.state !== "succeeded" && h("div", { class: "why clamp1" }, foreign(task.error.message))),
    h("td", { class: "user" }, task.user_id
      && link(href("tasks", { user_id: task.user_id }), { tabindex: "-1", title: "this user's tasks" }, foreign(task.user_id))),
    h("td", { class: "key" }, task.key && foreign(task.key)),
    h("td", { class: "mode" }, task.mode),
    h("td", { class: "num tries", title: "attempts / polls" }, `${task.attempt}/${task.polls}`),
    h("td", { class: "when" }, time(task.created_at)));
}

const HEAD = [["State"], ["Prompt"], ["User", "user"], ["Key", "key"], ["Mode", "mode"], ["Try/Poll", "num tries"], ["Stored", "when"]];

export function show(ctx) {
  const { params } = ctx;
  const filter = filterOf(params);
  const rows = new Rows(() => toolbar());
  const counts = live.state.last?.tasks;
  const total = h("span", { class: "total", role: "status" });
  const bar = h("div", { class: "toolbar" });
  const body = h("div", { class: "listing", "aria-busy": "true" }, h("div", { class: "skeleton" }));
  const chips = stateChips("tasks", params, counts);
  put(ctx.root, h("h1", { class: "unseen", tabindex: "-1" }, "Tasks"), chips,
    filterForm("tasks", params), filterChips("tasks", params) || "", bar, body);

  let page = null, drawn = null;
  function toolbar() {
    const n = rows.chosen.size;
    const actions = settings.actions && ACTIONS.map((action) => button(labelOf(action), () => {
      if (n) onIds(action, [...rows.chosen.keys()], [...rows.chosen.values()], () => { rows.clear(); draw(); });
      else onFilter(action, filter, draw);
    }, { class: action === "cancel" || action === "resubmit" ? "risky" : "" }));
    const pages = pager(page?.newer && href("tasks", { ...params, before: "", after: page.newer }),
      page?.older && href("tasks", { ...params, after: "", before: page.older }));
    put(bar, total,
      settings.actions ? h("div", { class: "acts", role: "group", "aria-label": n ? `Actions on ${n} selected tasks` : "Actions on all that match" },
        h("span", { class: "what" }, n ? `${number(n)} selected:` : isFiltered(params) ? "All that match:" : "All tasks:"), actions,
        n ? button("Select none", () => rows.clear(), { class: "quiet" }) : null) : "", pages);
  }

  async function count() {
    try {
      const counted = await get("count", filter, ctx.signal);
      total.textContent = `${counted.exact ? "" : "at least "}${number(counted.count)} task${counted.count === 1 ? "" : "s"}`;
    } catch (err) {
      if (err.name !== "AbortError") total.textContent = "";
    }
  }

  async function draw() {
    body.setAttribute("aria-busy", "true");
    let got;
    try {
      got = await load(params, ctx.signal, () => { total.textContent = "looking further back …"; });
    } catch (err) {
      drawn = null;
      if (err.name !== "AbortError") put(body, trouble(err, draw));
      return;
    } finally {
      body.setAttribute("aria-busy", "false");
    }
    page = got;
    count();
    const now = JSON.stringify([page.tasks, page.older]);
    if (now === drawn) return; // what is hovered over or marked stays
    drawn = now;
    const focused = rows.hasFocus();
    if (page.tasks.length === 0) {
      put(body, nothing(params, page));
    } else {
      const all = settings.actions && h("input", { type: "checkbox", "aria-label": "Select all on this page",
        on: { change: (event) => rows.chooseAll(event.target.checked) } });
      put(body, h("table", { class: "tasks" },
        h("thead", null, h("tr", null, settings.actions && h("th", { class: "pick", scope: "col" }, all),
          HEAD.map(([title, cls]) => h("th", { scope: "col", class: cls || title.toLowerCase() }, title)))),
        h("tbody", null, page.tasks.map(row))));
      rows.settle(focused);
    }
    if (params.q && !params.since) body.append(h("p", { class: "dim note" }, "Prompts of the last seven days were searched. ",
      link(href("tasks", { ...params, since: "1970-01-01" }), null, "Search all")));
    toolbar();
  }

  toolbar();
  draw();
  return {
    refresh: (state) => {
      if (state.last) updateCounts(chips, state.last.tasks);
      if (!params.before && !params.after) draw();
    },
    key: (event) => rows.key(event),
    focusSearch: () => focusFilter(ctx.root),
  };
}

function nothing(params, page) {
  if (page.older) return h("div", { class: "empty" }, h("p", { class: "title" }, "None so far"),
    h("p", null, "This filter picks little, and some thousand tasks were looked at."),
    link(href("tasks", { ...params, before: page.older, after: "" }), { class: "button" }, "Look further back"));
  if (params.before || params.after) return h("div", { class: "empty" }, h("p", { class: "title" }, "No more tasks"),
    link(href("tasks", { ...params, before: "", after: "" }), { class: "button" }, "To the newest"));
  if (isFiltered(params)) return h("div", { class: "empty" }, h("p", { class: "title" }, "No task matches"),
    h("p", null, "User, key and account must be whole; the prompt may be a part."), button("Clear the filter", () => go(href("tasks")), {}));
  return empty("No tasks yet", "Submit one: mjhook submit \"a fox\"");
}
