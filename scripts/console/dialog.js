// Questions, and actions on many: a dry run with its number, a confirmation, progress, a report.
import { act } from "./api.js";
import { button, foreign, h, put, toast } from "./dom.js";
import { now, number, plural } from "./format.js";
import { inWords } from "./filter.js";

const ACTIONS = {
  cancel: { label: "Cancel", done: "cancelled", noun: "task", danger: true,
    about: "The provider can't be told: a result that comes later is recorded, and makes no event." },
  resubmit: { label: "Resubmit", done: "resubmitted", noun: "task", danger: true,
    about: "Each gets a new attempt, which is sent when a slot is free.",
    warning: "May be billed twice: an ambiguous task may have arrived, and a lost one may still run." },
  refresh: { label: "Refresh", done: "refreshed", noun: "task", about: "The provider is asked about each of them now." },
  replay: { label: "Replay events", done: "replayed", noun: "task",
    about: "The last event of each task is handed to the policy again, under its own id, also when it was delivered." },
  kick: { label: "Kick", done: "kicked", noun: "event", about: "Each is handed out again at once, with all its tries ahead." },
  bury: { label: "Bury", done: "buried", noun: "event", danger: true,
    about: "Each is given up and kept until it is kicked." },
  readmit: { label: "Readmit", done: "readmitted", noun: "callback", about: "Each is read anew, as if it had just come." },
};
export const labelOf = (action) => ACTIONS[action].label;

function open(title, ...content) {
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, h("h2", { id: "dialog-title" }, title), content);
  document.body.append(dialog);
  dialog.addEventListener("close", () => {
    dialog.remove();
    setTimeout(() => { if (document.activeElement === document.body) document.getElementById("main").focus({ preventScroll: true }); });
  });
  dialog.showModal();
  return dialog;
}

function errorsOf(report) {
  if (report.errors.length === 0) return null;
  return h("div", null, h("p", { class: "strong" }, report.failed > report.errors.length ? `The first ${report.errors.length} errors` : "Errors"),
    h("ul", { class: "errors" }, report.errors.map((err) => h("li", null, foreign(err.message)))));
}

function inKinds(report) {
  const kinds = Object.entries(report.by).sort();
  return kinds.length ? h("p", { class: "kinds" }, kinds.map(([kind, n]) => h("span", { class: "badge " + kind }, `${number(n)} ${kind}`))) : null;
}

function showReport(dialog, how, report) {
  const parts = [`${plural(report.done, how.noun)} ${how.done}`];
  if (report.sent !== undefined) parts.push(`${number(report.sent)} sent, the others wait for a slot`);
  if (report.skipped) parts.push(`${number(report.skipped)} skipped: they had changed, or it means nothing to them`);
  if (report.failed) parts.push(`${number(report.failed)} failed`);
  put(dialog, h("h2", { id: "dialog-title" }, report.failed || report.stopped ? "Not all of them" : "Done"),
    h("p", { role: "status" }, parts.join("; ") + "."), report.stopped && h("p", { class: "warn" }, "It ended early: run it again to go on."),
    errorsOf(report), h("div", { class: "buttons" }, button("Close", () => dialog.close(), { class: "primary", autofocus: true })));
  dialog.querySelector("button").focus();
}

async function run(dialog, how, wanted, total) {
  const bar = h("progress", { max: String(total || 1), value: 0, "aria-label": "Progress" });
  const said = h("p", { role: "status" }, `0 of ${number(total)}`);
  put(dialog, h("h2", { id: "dialog-title" }, how.label + " …"), bar, said,
    h("p", { class: "dim" }, "It goes on in the server if this page is closed after it began a page of 100."));
  try {
    const report = await act(wanted, (p) => {
      const done = p.done + p.skipped + p.failed;
      bar.value = done;
      said.textContent = `${number(done)} of ${number(total)}`;
    });
    showReport(dialog, how, report);
  } catch (err) {
    put(dialog, h("h2", { id: "dialog-title" }, "It failed"), h("p", { role: "alert" }, foreign(err.message)),
      h("div", { class: "buttons" }, button("Close", () => dialog.close(), { class: "primary" })));
  }
}

// Asks, and does it to all that a filter picks. Resolves when the dialog is closed.
export async function onFilter(action, filter, after) {
  const how = ACTIONS[action];
  const frozen = { ...filter, until: Math.min(filter.until ?? Infinity, Math.round(now())) }; // what is stored later is not picked
  const dialog = open(`${how.label}: counting …`, h("p", { role: "status" }, "Nothing is changed yet."));
  let report;
  try {
    report = await act({ action, filter: frozen, dry_run: true });
  } catch (err) {
    put(dialog, h("h2", { id: "dialog-title" }, "This can't be done"), h("p", { role: "alert" }, foreign(err.message)),
      h("div", { class: "buttons" }, button("Close", () => dialog.close(), { class: "primary" })));
    return;
  }
  dialog.addEventListener("close", () => after?.());
  ask(dialog, action, how, report, { action, filter: frozen },
    h("p", null, "Picked by: ", h("b", null, foreign(inWords(filter)))));
}

function ask(dialog, action, how, report, wanted, picked) {
  if (report.matched === 0) {
    put(dialog, h("h2", { id: "dialog-title" }, "Nothing to do"),
      h("p", null, `No ${how.noun} that this filter picks can be ${how.done} now.`),
      h("div", { class: "buttons" }, button("Close", () => dialog.close(), { class: "primary" })));
    dialog.querySelector("button").focus();
    return;
  }
  const many = plural(report.matched, how.noun);
  put(dialog, h("h2", { id: "dialog-title" }, `${how.label} ${many}?`), picked, inKinds(report),
    h("p", null, how.about), how.warning && h("p", { class: "warn", role: "alert" }, how.warning),
    h("div", { class: "buttons" },
      button("Back", () => dialog.close(), { autofocus: true }),
      button(`${how.label} ${many}`, () => run(dialog, how, wanted, report.matched), { class: how.danger ? "danger" : "primary" })));
  dialog.querySelector("button").focus();
}

// Asks, and does it to these ids. What does no harm and is one is done at once.
export function onIds(action, ids, states, after) {
  const how = ACTIONS[action];
  const wanted = { action, ids };
  if (ids.length === 1 && !how.danger) {
    act(wanted).then((report) => {
      if (report.failed) toast(report.errors[0].message, true);
      else toast(report.outcome ? `Callback ${report.outcome}` : `1 ${how.noun} ${how.done}`);
      after?.();
    }, (err) => toast(err.message, true));
    return;
  }
  const dialog = open("", "");
  dialog.addEventListener("close", () => after?.());
  const by = {};
  for (const state of states || []) by[state] = (by[state] || 0) + 1;
  ask(dialog, action, how, { matched: ids.length, by }, wanted, null);
}

// A question with one field or none. Resolves to its value, or null.
export function question(title, text, label, field) {
  return new Promise((resolve) => {
    let answer = null;
    const yes = () => { answer = field ? field.value : true; dialog.close(); };
    const dialog = open(title, text && h("p", null, text), field && h("label", { class: "field" }, h("span", null, "For how long"), field),
      h("div", { class: "buttons" }, button("Back", () => dialog.close()), button(label, yes, { class: "primary" })));
    dialog.addEventListener("close", () => resolve(answer));
  });
}

export function help() {
  const keys = [["j / k", "next, previous row"], ["Enter", "open the row"], ["x", "select the row"], ["/", "search"],
    ["p", "pause or resume the live view"], ["Esc", "close, back"], ["g t", "tasks"], ["g e", "events"], ["g c", "callbacks"],
    ["g a", "accounts"], ["g h", "health"], ["g i", "gallery"]];
  const dialog = open("Keys", h("dl", { class: "keys" }, keys.map(([key, what]) => [h("dt", null, h("kbd", null, key)), h("dd", null, what)])),
    h("div", { class: "buttons" }, button("Close", () => dialog.close(), { class: "primary", autofocus: true })));
}
