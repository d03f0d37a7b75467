// A task's story: everything that is known of it on one line of time, and what would happen next.
import { get, settings } from "./api.js";
import { onIds, labelOf } from "./dialog.js";
import { badge, button, copy, empty, foreign, h, link, put, trouble, unloaded } from "./dom.js";
import { briefly, bytes, duration, exactly, pretty, relative, time } from "./format.js";
import { go, href } from "./route.js";
import { ACTIONS } from "./tasks.js";

const MAY = {
  cancel: ["queued", "submitting", "ambiguous", "pending"], resubmit: ["ambiguous", "lost", "failed"],
  refresh: ["submitting", "ambiguous", "pending", "lost", "succeeded", "failed", "cancelled"],
  replay: ["ambiguous", "succeeded", "failed", "lost"],
};

function fact(label, value) {
  if (value === null || value === undefined || value === "") return null;
  return h("div", null, h("dt", null, label), h("dd", null, typeof value === "string" ? foreign(value) : value));
}

const at = (ms) => ms && h("span", null, time(ms), h("span", { class: "dim" }, " · " + briefly(ms)));

// The entries of the timeline, the tries of events and the refused callbacks, in the order of time.
function happenings(story) {
  const { task } = story;
  const list = task.timeline.map((entry) => ({ at: entry.at, kind: entry.source, text: entry.text,
    state: entry.moved && entry.to, order: 0 }));
  for (const event of story.events) {
    list.push({ at: event.created_at, kind: "event", text: `“${event.type}” event stored`, order: 1 });
    for (const err of event.errors)
      list.push({ at: err.at, kind: "event", text: `“${event.type}” event: ${err.message || "a try failed"}`, bad: true, order: 2 });
    if (event.buried) list.push({ at: event.errors.at(-1)?.at || event.created_at, kind: "event",
      text: `“${event.type}” event is buried: kick hands it out again`, bad: true, order: 3 });
    else if (event.leased && event.next_at > story.now) list.push({ at: story.now, kind: "event", text: `“${event.type}” event is being handled`, order: 4 });
    else list.push({ at: event.next_at, kind: "event", text: `“${event.type}” event is handed to the policy`, next: true, order: 5 });
  }
  for (const kept of story.refused)
    list.push({ at: kept.at, kind: "callback", text: `callback refused (${bytes(kept.size)})${kept.reason ? ": " + kept.reason : ""}`, bad: true, order: 1 });
  if (story.next) list.push({ at: story.next.at, kind: "next", text: story.next.what, next: true, order: 6 });
  list.sort((a, b) => a.at - b.at || a.order - b.order);
  return list;
}

function timeline(story) {
  const list = happenings(story), start = story.task.created_at;
  return h("ol", { class: "timeline" }, list.map((entry, i) => [
    h("li", { class: [entry.bad && "bad", entry.next && "future"].filter(Boolean).join(" ") },
      h("span", { class: "offset", title: exactly(entry.at) }, entry.next ? relative(entry.at) : `+${duration(entry.at - start)}`),
      h("span", { class: "source" }, entry.kind), h("span", { class: "text" }, foreign(entry.text)),
      entry.state && h("span", { class: "to" }, "→ ", badge(entry.state))),
    story.task.timeline_dropped && i === 3 ? h("li", { class: "dim" }, `… ${story.task.timeline_dropped} more, no longer kept`) : null]));
}

function attempts(task) {
  return h("table", { class: "small" }, h("thead", null, h("tr", null,
    ["Attempt", "Status", "Account", "Task id", "Sent", "Slot until"].map((t) => h("th", { scope: "col" }, t)))),
  h("tbody", null, task.attempts.map((a) => h("tr", null, h("td", null, String(a.attempt)), h("td", null, a.word),
    h("td", null, a.account && foreign(a.account)), h("td", { class: "mono" }, (a.task_ids || []).map((id) => h("div", null, foreign(id)))),
    h("td", null, time(a.submitted_at)), h("td", null, time(a.slot_until))))));
}

export function pictures(images, prompt) {
  return images.map((image) => h("figure", null,
    image.src ? h("a", { href: image.src, rel: "noreferrer noopener", target: "_blank" }, h("img", { src: image.src, loading: "lazy", referrerpolicy: "no-referrer",
      alt: image.index === 0 ? `Grid: ${prompt || "image"}` : `Image ${image.index}`, on: { error: unloaded } }))
      : h("span", { class: "noimage" }, settings.images === "off" ? "images are off" : settings.images === "archived" ? "not archived" : "not loaded"),
    h("figcaption", null, image.index === 0 ? "grid" : String(image.index), image.archived ? " · archived" : "")));
}

function eventRow(event, after) {
  return h("li", null, badge(event.buried ? "buried" : event.errors.length ? "failing" : "waiting"),
    ` ${event.type} · ${event.tries} ${event.tries === 1 ? "try" : "tries"} `,
    settings.actions && button("Kick", () => onIds("kick", [event.event_id], [], after), { class: "small" }),
    settings.actions && !event.buried && button("Bury", () => onIds("bury", [event.event_id], [], after), { class: "small risky" }));
}

export function show(ctx) {
  const back = link(history.length > 1 ? "#" : href("tasks"), { class: "back", on: { click: (event) => { event.preventDefault(); leave(); } } }, "← Back");
  const leave = () => (history.length > 1 && ctx.from ? history.back() : go(href("tasks")));
  const content = h("div", { class: "story", "aria-busy": "true" }, h("div", { class: "skeleton" }));
  put(ctx.root, back, content);
  let open = false, latest = null;

  async function draw() {
    let story;
    try {
      story = await get("task", { ref: ctx.id }, ctx.signal);
    } catch (err) {
      if (err.name === "AbortError") return;
      put(content, err.status === 404 || err.status === 400
        ? [h("h1", { class: "unseen", tabindex: "-1" }, "No such task"), empty("There is no such task", "It was pruned, or the ref is of another store.")]
        : trouble(err, draw));
      return;
    } finally {
      content.setAttribute("aria-busy", "false");
    }
    const { task } = story;
    const same = JSON.stringify({ ...story, now: 0 });
    if (same === latest) return; // nothing to draw: what is selected stays
    latest = same;
    open = content.querySelector("details.raw")?.open || open;
    const acts = settings.actions && h("div", { class: "acts" }, ACTIONS.filter((a) => MAY[a].includes(task.state)).map((action) =>
      button(labelOf(action), () => onIds(action, [task.ref], [task.state], draw), { class: action === "cancel" || action === "resubmit" ? "risky" : "" })));
    const focused = content.contains(document.activeElement) && document.activeElement.textContent;
    put(content, 
      h("div", { class: "title" }, h("h1", { class: "mono", tabindex: "-1" }, task.ref), badge(task.state), task.late && h("span", { class: "dim" }, "late"),
        button("Copy ref", () => copy(task.ref, "Ref"), { class: "quiet small" })),
      story.hidden ? h("p", { class: "dim" }, "Prompt, user and key are hidden in this console.") : h("p", { class: "fullprompt" }, foreign(task.prompt || "")),
      story.why && h("p", { class: "callout " + task.state }, foreign(story.why)),
      story.next && h("p", { class: "nextstep" }, "Next: ", h("b", null, story.next.what), " ", time(story.next.at)),
      acts,
      h("section", { "aria-label": "Facts" }, h("dl", { class: "facts" },
        fact("User", task.user_id && link(href("tasks", { user_id: task.user_id }), null, foreign(task.user_id))),
        fact("Key", task.key), fact("Account", task.account), fact("Mode", `${task.mode}, timeout ${duration(task.timeout * 1000)}`),
        fact("Priority", task.priority || null), fact("Run as", task.mj_prompt !== task.prompt ? task.mj_prompt : null),
        fact("Stored", at(task.created_at)), fact("Sent", at(task.submitted_at)), fact("Called back", at(task.called_at)), fact("Finished", at(task.finished_at)),
        fact("Told by", task.source), fact("Polls", task.polls ? String(task.polls) : null), fact("Expires", at(task.expires_at)),
        fact("Context", story.context_text && h("code", null, foreign(story.context_text))),
        fact("Meta", story.meta_text && h("code", null, foreign(story.meta_text))))),
      story.images.length > 0 && h("section", null, h("h2", null, "Images"), h("div", { class: "pictures" }, pictures(story.images, task.prompt))),
      story.events.length > 0 && h("section", null, h("h2", null, "Events"), h("ul", { class: "events" }, story.events.map((e) => eventRow(e, draw)))),
      h("section", null, h("h2", null, "What happened"), timeline(story)),
      h("section", null, h("h2", null, "Attempts"), h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Attempts" }, attempts(task))),
      h("details", { class: "raw", open }, h("summary", null, "Record as JSON"),
        button("Copy", () => copy(pretty(story.raw), "JSON"), { class: "quiet small" }),
        h("pre", { tabindex: "0", "aria-label": "JSON" }, foreign(pretty(story.raw)))));
    if (focused) [...content.querySelectorAll("button, a, summary")].find((node) => node.textContent === focused)?.focus();
    ctx.title(`${task.state} ${task.ref}`);
  }

  draw();
  return { refresh: draw, escape: leave };
}
