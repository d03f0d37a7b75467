// The frame: what is where, the search, the live switch, the keys.
import { begin, get, settings } from "./api.js";
import { help } from "./dialog.js";
import { button, h, link, put, toast, trouble } from "./dom.js";
import { number } from "./format.js";
import * as live from "./live.js";
import { current, go, href, taskHref } from "./route.js";
import * as accounts from "./accounts.js";
import * as callbacks from "./callbacks.js";
import * as events from "./events.js";
import * as gallery from "./gallery.js";
import * as health from "./health.js";
import * as task from "./task.js";
import * as tasks from "./tasks.js";

const VIEWS = { tasks, task, events, callbacks, accounts, health, gallery };
const NAV = [["tasks", "Tasks", "t"], ["events", "Events", "e"], ["callbacks", "Callbacks", "c"],
  ["accounts", "Accounts", "a"], ["health", "Health", "h"], ["gallery", "Gallery", "i"]];
const main = document.getElementById("main"), header = document.getElementById("header");

let view = null, aborter = null, shown = null;

// ---- the frame ----

const marks = { events: h("span", { class: "mark", hidden: true }) };
const nav = h("nav", { "aria-label": "Views" }, NAV.map(([name, label]) => link(href(name), { "data-view": name }, label, marks[name])));
const switcher = h("button", { type: "button", class: "live", on: { click: () => live.pause(!live.state.paused) } });
const search = h("form", { class: "find", role: "search", "aria-label": "Find a task" },
  h("input", { type: "search", name: "id", placeholder: "Ref, task id or key",
    "aria-label": "Find a task by ref, task id or key", autocomplete: "off", spellcheck: "false" }));
search.addEventListener("submit", async (event) => {
  event.preventDefault();
  const input = search.elements.id, id = input.value.trim();
  if (!id) return;
  try {
    const found = await get("find", { id });
    if (found.pruned) toast(`Task ${found.ref} was ${found.state} and is pruned: only its ref, key and ids are kept`, true);
    else { input.value = ""; input.blur(); go(taskHref(found.ref)); }
  } catch (err) {
    if (err.status === 404 && !settings.private) { toast("No task has this ref, task id or key: looking in the prompts"); go(href("tasks", { q: id })); }
    else toast(err.message, true);
  }
});

function drawLive(state) {
  const word = state.paused ? "Paused" : state.connected ? "Live" : "Connection lost";
  switcher.className = "live " + (state.paused ? "paused" : state.connected ? "on" : "lost");
  put(switcher, h("span", { class: "pulse", "aria-hidden": "true" }), word);
  switcher.setAttribute("aria-pressed", String(state.paused));
  switcher.setAttribute("aria-label", state.paused ? "Live view is paused: resume" : `${word}: pause the live view`);
  switcher.title = state.paused ? "Nothing on this page changes by itself (p)"
    : state.connected ? "The page follows what happens (p pauses it)" : "Trying to connect again …";
  const buried = state.last?.buried;
  marks.events.hidden = !buried;
  marks.events.textContent = buried ? number(buried) : "";
  marks.events.title = buried ? `${buried} buried` : "";
}

// ---- views ----

function show() {
  const route = current();
  const module = VIEWS[route.view];
  if (!module) return go(href("tasks"));
  aborter?.abort();
  aborter = new AbortController();
  for (const node of nav.children) {
    if (node.dataset.view === route.view || (route.view === "task" && node.dataset.view === "tasks")) {
      node.setAttribute("aria-current", "page");
      nav.scrollLeft = Math.max(0, node.offsetLeft - nav.offsetLeft - nav.clientWidth / 3); // on a phone not all fit
    }
    else node.removeAttribute("aria-current");
  }
  const title = (text) => { document.title = text ? `${text} · mjhook` : "mjhook"; };
  title(NAV.find(([name]) => name === route.view)?.[1] || "Task");
  const moved = shown !== null && shown !== route.view;
  view = module.show({ root: main, params: route.params, id: route.id, signal: aborter.signal, from: shown, title });
  if (moved) { scrollTo(0, 0); main.focus({ preventScroll: true }); }
  shown = route.view;
}

// What is drawn anew at most once a second, and never while it is paused, a dialog is open or text is marked.
let due = null, drawn = 0;
live.onChange((state) => {
  drawLive(state);
  if (state.paused || due || document.hidden) return;
  due = setTimeout(() => {
    due = null;
    if (live.state.paused || document.querySelector("dialog[open]") || !getSelection().isCollapsed) return;
    drawn = Date.now();
    view?.refresh?.(live.state);
  }, Math.max(0, drawn + 1000 - Date.now()));
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !live.state.paused) view?.refresh?.(live.state);
});

// ---- keys ----

// The link that skips to the content is no route.
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });

let leading = 0;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const typing = event.target.closest("input:not([type=checkbox]), select, textarea");
  if (typing) {
    if (event.key === "Escape") typing.blur();
    return;
  }
  if (Date.now() - leading < 1200) {
    leading = 0;
    const to = NAV.find(([, , key]) => key === event.key);
    if (to) { event.preventDefault(); go(href(to[0])); }
    return;
  }
  if (event.key === "g") leading = Date.now();
  else if (event.key === "/") { event.preventDefault(); (view?.focusSearch || (() => search.elements.id.focus()))(); }
  else if (event.key === "f") { event.preventDefault(); search.elements.id.focus(); }
  else if (event.key === "p") live.pause(!live.state.paused);
  else if (event.key === "?") help();
  else if (event.key === "Escape") view?.escape?.();
  else if (view?.key?.(event)) event.preventDefault();
});

async function start() {
  put(header, link(href("tasks"), { class: "brand" }, "mjhook"), nav, search, switcher,
    button("?", help, { class: "quiet", "aria-label": "Keys", title: "Keys (?)" }));
  drawLive(live.state);
  try {
    await begin();
  } catch (err) {
    put(main, trouble(err, start));
    return;
  }
  document.body.classList.toggle("readonly", !settings.actions);
  addEventListener("hashchange", show);
  show();
  live.start();
}

start();
