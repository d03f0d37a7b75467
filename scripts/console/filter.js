// A filter: a form, chips, and what the API takes. It lives in the address.
import { button, copy, h } from "./dom.js";
import { moment } from "./format.js";
import { settings } from "./api.js";
import { go, href } from "./route.js";

const NAMES = { q: "prompt", user_id: "user", key: "key", account: "account", mode: "mode", since: "since", until: "until" };
const SPANS = [["", "any time"], ["1h", "last hour"], ["24h", "last day"], ["7d", "last 7 days"], ["30d", "last 30 days"]];

// The filter of an address, as the API takes it.
export function filterOf(params) {
  const filter = {};
  for (const name of ["q", "user_id", "key", "account", "mode"]) if (params[name]) filter[name] = params[name];
  if (params.state) filter.state = params.state.split(",");
  for (const name of ["since", "until"]) {
    const at = moment(params[name]);
    if (at !== undefined) filter[name] = at;
  }
  return filter;
}

export const isFiltered = (params) => Object.keys(NAMES).some((name) => params[name]) || Boolean(params.state);

function change(view, params, more) {
  const next = { ...params, ...more };
  delete next.before;
  delete next.after;
  go(href(view, next));
}

function field(label, input) {
  return h("label", { class: "field" }, h("span", null, label), input);
}

function choice(name, value, options) {
  return h("select", { name }, options.map(([is, label]) => h("option", { value: is, selected: is === value }, label)));
}

const local = (text) => {
  const at = moment(text);
  if (at === undefined) return "";
  const d = new Date(at);
  return new Date(at - d.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
};

// The form. A change of a list is used at once, a text when Enter is pressed or the field is left.
export function filterForm(view, params) {
  const spans = SPANS.some(([is]) => is === (params.since || "")) && !params.until ? SPANS
    : [...SPANS, ["custom", "custom"]];
  const since = choice("span", spans === SPANS ? params.since || "" : "custom", spans === SPANS ? [...SPANS, ["custom", "custom …"]] : spans);
  const from = h("input", { type: "datetime-local", name: "from", value: local(params.since) });
  const till = h("input", { type: "datetime-local", name: "till", value: local(params.until) });
  const custom = h("div", { class: "custom", hidden: spans === SPANS }, field("From", from), field("Until", till));
  const text = (name, label, hint) => field(label, h("input", {
    type: "search", name, value: params[name] || "", placeholder: hint, autocomplete: "off", spellcheck: "false", maxlength: "256" }));
  const form = h("form", { class: "filters", role: "search", "aria-label": "Filter" },
    !settings.private && text("q", "Prompt contains", "fox"),
    !settings.private && text("user_id", "User", "whole id"),
    !settings.private && text("key", "Key", "whole key"),
    settings.accounts.length > 1 && field("Account", choice("account", params.account || "", [["", "any"], ...settings.accounts.map((a) => [a, a])])),
    field("Mode", choice("mode", params.mode || "", [["", "any"], ["fast", "fast"], ["relaxed", "relaxed"]])),
    field("Stored", since), custom,
    h("button", { type: "submit", class: "quiet" }, "Apply"));
  const apply = () => {
    const more = {};
    for (const name of ["q", "user_id", "key", "account", "mode"])
      if (form.elements[name]) more[name] = form.elements[name].value.trim();
    if (since.value === "custom") {
      custom.hidden = false;
      more.since = from.value && new Date(from.value).toISOString();
      more.until = till.value && new Date(till.value).toISOString();
    } else {
      more.since = since.value;
      more.until = "";
    }
    change(view, params, more);
  };
  form.addEventListener("submit", (event) => { event.preventDefault(); apply(); });
  form.addEventListener("change", (event) => {
    if (event.target === since && since.value === "custom") custom.hidden = false;
    else apply();
  });
  form.addEventListener("search", apply);
  return h("details", { class: "filterbox", open: matchMedia("(min-width: 48em)").matches || isFiltered(params) },
    h("summary", null, "Filter"), form);
}

export function focusFilter(root) {
  root.querySelector(".filterbox").open = true;
  root.querySelector(".filters input, .filters select").focus();
}

// A button for each state, with how many tasks are in it; several can be chosen.
export function stateChips(view, params, counts) {
  const chosen = new Set(params.state ? params.state.split(",") : []);
  const total = Object.values(counts || {}).reduce((a, b) => a + b, 0);
  const chip = (label, n, pressed, click, cls) => h("button", {
    type: "button", class: "chip " + cls, "aria-pressed": String(pressed), on: { click } },
  label, h("span", { class: "n", "data-count": cls }, n === undefined ? "" : String(n.toLocaleString())));
  return h("div", { class: "chips states", role: "group", "aria-label": "States" },
    chip("all", total, chosen.size === 0, () => change(view, params, { state: "" }), "all"),
    settings.states.map((state) => chip(state, counts?.[state], chosen.has(state), (event) => {
      const next = new Set(event.ctrlKey || event.metaKey || event.shiftKey ? chosen : []);
      if (chosen.has(state)) next.delete(state); else next.add(state);
      if (chosen.has(state) && chosen.size === 1) next.clear();
      change(view, params, { state: [...next].join(",") });
    }, state)));
}

export function updateCounts(root, counts) {
  const total = Object.values(counts).reduce((a, b) => a + b, 0);
  for (const node of root.querySelectorAll("[data-count]")) {
    const n = node.dataset.count === "all" ? total : counts[node.dataset.count];
    if (n !== undefined) node.textContent = n.toLocaleString();
  }
}

// What is filtered by, each to be taken away.
export function filterChips(view, params) {
  const chips = Object.entries(NAMES).filter(([name]) => params[name]).map(([name, label]) =>
    h("span", { class: "chip set" }, `${label} `, h("b", null, h("bdi", null, params[name])),
      button("×", () => change(view, params, { [name]: "" }), { "aria-label": `Remove the filter ${label}`, class: "x" })));
  if (chips.length === 0 && !params.state) return null;
  return h("div", { class: "chips" }, chips,
    button("Clear", () => go(href(view)), { class: "quiet" }),
    button("Copy link", () => copy(location.href, "Link"), { class: "quiet" }));
}

// The filter in words, for a question.
export function inWords(filter) {
  const parts = [];
  for (const [name, label] of Object.entries(NAMES))
    if (filter[name]) parts.push(`${label} ${name === "since" || name === "until" ? new Date(filter[name]).toLocaleString() : `“${filter[name]}”`}`);
  if (filter.state) parts.unshift(filter.state.join(" or "));
  return parts.length ? parts.join(", ") : "no filter: all of them";
}
