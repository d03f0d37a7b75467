// Accounts: slots, what keeps one from sending, and a person's say in it.
import { act, get, settings } from "./api.js";
import { question } from "./dialog.js";
import { badge, button, empty, h, link, put, toast, trouble } from "./dom.js";
import { duration, number, time } from "./format.js";
import { href } from "./route.js";

const REASON = { quota: "its quota is used up", concurrency: "the provider says that all of its places are taken", rate_limit: "the provider's rate limit",
  auth: "the provider refuses the API key", redirect: "base_url answers with a redirect", endpoint: "what base_url leads to refuses every request",
  blocked: "something in front of the provider refuses us", not_sent: "the provider can't be reached", by_hand: "it was paused by hand" };
const FOR_EVER = 2 ** 52;
const SPANS = [[600, "10 minutes"], [3600, "1 hour"], [6 * 3600, "6 hours"], [86400, "1 day"], [7 * 86400, "7 days"]];

async function change(wanted, done, draw) {
  try {
    await act(wanted);
    toast(done);
  } catch (err) {
    toast(err.message, true);
  }
  draw();
}

function card(account, now, draw) {
  const rests = account.paused_until > now, drained = account.paused_until > FOR_EVER, limit = account.learned ?? account.max_in_flight;
  const state = account.max_in_flight === 0 ? badge("cancelled", "0 slots configured") : drained ? badge("ambiguous", "drained")
    : rests ? badge("ambiguous", "rests") : badge("succeeded", "sending");
  const pause = async () => {
    const span = h("select", null, SPANS.map(([s, label]) => h("option", { value: String(s), selected: s === 3600 }, label)));
    const seconds = await question(`Pause account ${account.name}?`, "Nothing new is sent under it. What was sent goes on.", "Pause", span);
    if (seconds) change({ action: "pause", account: account.name, seconds: Number(seconds) }, `Account ${account.name} rests for ${duration(seconds * 1000)}`, draw);
  };
  const resume = () => change({ action: "resume", account: account.name }, `Account ${account.name} sends again`, draw);
  const drain = async () => {
    if (await question(`Drain account ${account.name}?`,
      "Nothing new is sent under it until you resume it. What was sent goes on, and its slots become free.", "Drain"))
      change({ action: "drain", account: account.name }, `Account ${account.name} is drained until you resume it`, draw);
  };
  return h("li", { class: "card account" }, h("div", { class: "panelhead" }, h("h2", null, account.name), state),
    h("label", null, h("span", null, `${number(account.held)} of ${number(limit)} slots held`),
      h("meter", { min: "0", max: String(Math.max(limit, account.held, 1)), value: String(account.held), high: String(limit * 0.9) })),
    account.learned !== undefined && h("p", { class: "dim" }, `${number(account.max_in_flight)} configured; the provider said "full" `
      + "while there was room, so others use the key, too. The limit rises by a slot each minute."),
    rests && h("p", { class: "callout ambiguous" },
      drained ? "Nothing is sent until it is resumed" : ["Nothing is sent: next try ", time(account.paused_until)],
      account.reason ? `: ${REASON[account.reason] || account.reason}.` : "."),
    h("div", { class: "acts" }, link(href("tasks", { account: account.name }), { class: "button quiet" }, "Its tasks"),
      settings.actions && [rests && button("Resume", resume, { class: "primary" }),
        button("Pause …", pause), !drained && button("Drain …", drain, { class: "risky" })]));
}

// A button by its account and its words: the same one after the cards were drawn anew.
const nameOf = (node) => node.closest(".card")?.querySelector("h2").textContent + " " + node.textContent;

export function show(ctx) {
  const body = h("div", null, h("div", { class: "skeleton" }));
  put(ctx.root, h("h1", { tabindex: "-1" }, "Accounts"), body);
  async function draw() {
    try {
      const stats = await get("stats", null, ctx.signal);
      const focused = body.contains(document.activeElement) && nameOf(document.activeElement);
      put(body, stats.accounts.length ? h("ul", { class: "cards wide" }, stats.accounts.map((a) => card(a, stats.now, draw)))
        : empty("No account", "Set api_key or accounts in the configuration: see mjhook-config(5)."));
      [...body.querySelectorAll("button, a")].find((node) => nameOf(node) === focused)?.focus();
    } catch (err) {
      if (err.name !== "AbortError") put(body, trouble(err, draw));
    }
  }
  draw();
  return { refresh: draw };
}
