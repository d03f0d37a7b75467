// An operator at work: finds, acts, watches.  args: url, pid (of nginx), refs.  Everything is done through the page.
import { args, visit } from "./open.mjs";

const row = (page, ref) => page.locator(`[data-row="${ref}"]`);
const dialog = (page) => page.locator("dialog[open]");
const act = (page, name) => page.locator(".toolbar").getByRole("button", { name, exact: true }).click();
const job = async (prompt, user) => (await (await fetch(`${args.url}/jobs?prompt=${encodeURIComponent(prompt)}&user=${user}`)).text()).split(" ")[0];

// What the page must never do: run what a prompt says, break the policy, load from elsewhere.
async function open(context, path) {
  const page = await context.newPage();
  await page.addInitScript(() => {
    window.broken = [];
    document.addEventListener("securitypolicyviolation", (e) => window.broken.push(`${e.violatedDirective} ${e.blockedURI}`));
  });
  page.on("dialog", (d) => { page.alarmed = d.message(); d.dismiss(); });
  await page.goto(args.url + path);
  return page;
}

const steps = {
  async finds(page, seen) {
    await page.waitForSelector(".listing table");
    await page.keyboard.press("/");
    seen.searches = await page.evaluate(() => document.activeElement.name);
    await page.keyboard.type("OWL");
    await page.keyboard.press("Enter");
    await page.waitForURL(/q=OWL/);
    await row(page, args.refs.ambiguous).waitFor();
    seen.filtered = await page.locator("[data-row]").count();
    await page.reload();
    await row(page, args.refs.ambiguous).waitFor();
    seen.shared = await page.locator(".chip.set").innerText();
    await page.keyboard.press("Escape");
    await page.keyboard.press("f");
    await page.keyboard.type("order-7");
    await page.keyboard.press("Enter");
    await page.waitForURL(/#\/task\//);
    seen.found = page.url().endsWith(args.refs.ambiguous);
    await page.locator(".timeline").waitFor();
    await page.keyboard.press("Escape");
    await page.waitForURL(/q=OWL/);
    await page.getByRole("button", { name: "Clear", exact: true }).click();
    await page.waitForFunction(() => document.querySelectorAll("[data-row]").length > 20);
  },

  async reads(page, seen) {
    await page.goto(`${args.url}/console/#/task/${args.refs.hostile}`);
    await page.locator("details.raw summary").click();
    seen.exact = (await page.locator("details.raw pre").innerText()).includes("9007199254740993");
    seen.context = (await page.locator(".facts code").first().innerText()).includes("9007199254740993");
    seen.markup = await page.locator("main img[src=x], main script, main b b").count();
    seen.shown = (await page.locator(".fullprompt").innerText()).includes("<script>alert(2)</script>");
    seen.reversed = await page.locator(".fullprompt .cp").first().innerText();
  },

  async walks(page, seen) {
    await page.goto(`${args.url}/console/#/tasks`);
    await page.waitForFunction(() => document.querySelectorAll("[data-row]").length > 20);
    await page.keyboard.press("j");
    await page.keyboard.press("j");
    const at = await page.evaluate(() => document.activeElement.dataset.row);
    seen.second = at === (await page.locator("[data-row]").nth(1).getAttribute("data-row"));
    seen.outlined = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    await page.keyboard.press("x");
    seen.chosen = await page.locator(".acts .what").innerText();
    await page.keyboard.press("k");
    await page.keyboard.press("Enter");
    await page.waitForURL(/#\/task\//);
    await page.keyboard.press("g");
    await page.keyboard.press("a");
    await page.waitForURL(/#\/accounts/);
    await page.keyboard.press("?");
    seen.help = await dialog(page).innerText();
    await page.keyboard.press("Escape");
    await dialog(page).waitFor({ state: "detached" });
  },

  async cancels(page, seen, shot) {
    await page.goto(`${args.url}/console/#/tasks?user_id=crowd`);
    await page.waitForFunction(() => document.querySelectorAll("[data-row]").length === 50);
    await page.locator(".total", { hasText: "tasks" }).waitFor();
    seen.total = await page.locator(".total").innerText();
    await act(page, "Cancel");
    await dialog(page).getByRole("heading", { name: /Cancel 120 tasks\?/ }).waitFor();
    seen.asked = await dialog(page).innerText();
    await shot(page, "console-dialog");
    await dialog(page).getByRole("button", { name: "Back" }).click();
    await act(page, "Cancel");
    await dialog(page).getByRole("button", { name: "Cancel 120 tasks" }).click();
    await dialog(page).getByRole("heading", { name: "Done" }).waitFor();
    seen.report = await dialog(page).innerText();
    await dialog(page).getByRole("button", { name: "Close" }).click();
    await page.waitForFunction(() => [...document.querySelectorAll("[data-row] .badge")].every((b) => b.textContent === "cancelled"));
  },

  async resubmits(page, seen, shot) {
    await page.goto(`${args.url}/console/#/tasks?state=ambiguous,lost,failed&q=owl`);
    await row(page, args.refs.ambiguous).waitFor();
    await row(page, args.refs.ambiguous).locator("input").click();
    await act(page, "Resubmit");
    await shot(page, "console-warning");
    seen.warned = await dialog(page).locator("p.warn").innerText();
    await dialog(page).getByRole("button", { name: "Resubmit 1 task" }).click();
    await dialog(page).getByRole("heading", { name: "Done" }).waitFor();
    await dialog(page).getByRole("button", { name: "Close" }).click();
  },

  async delivers(page, seen) {
    await page.goto(`${args.url}/console/#/events?show=buried`);
    await row(page, `${args.refs.hostile}-1`).waitFor();
    seen.error = (await row(page, `${args.refs.hostile}-1`).locator(".why").innerText()).startsWith("<img src=x");
    await row(page, `${args.refs.hostile}-1`).locator("input").click();
    await act(page, "Kick");
    await page.locator(".empty").waitFor();
    await page.goto(`${args.url}/console/#/events?show=waiting&user_id=bob`);
    await row(page, `${args.refs.failed}-1`).waitFor();
    await act(page, "Bury");
    await dialog(page).getByRole("button", { name: /^Bury 1 event$/ }).click();
    await dialog(page).getByRole("button", { name: "Close" }).click();
    await page.goto(`${args.url}/console/#/callbacks`);
    await page.locator(".card summary").click();
    seen.body = (await page.locator(".card pre").innerText()).startsWith("<img src=x");
    await page.getByRole("button", { name: "Readmit" }).click();
    seen.readmitted = await page.locator(".toast", { hasText: /allback|JSON/ }).innerText();
  },

  async rests(page, seen) {
    await page.goto(`${args.url}/console/#/accounts`);
    await page.getByRole("button", { name: "Drain …" }).click();
    await dialog(page).getByRole("button", { name: "Drain" }).click();
    await page.getByText("Nothing is sent until it is resumed").waitFor();
    await page.getByRole("button", { name: "Resume" }).click();
    await page.locator(".badge", { hasText: "sending" }).waitFor();
    await page.getByRole("button", { name: "Pause …" }).click();
    await dialog(page).getByRole("combobox").selectOption("600");
    await dialog(page).getByRole("button", { name: "Pause" }).click();
    await page.locator(".badge", { hasText: "rests" }).waitFor();
    seen.rests = await page.locator(".callout").innerText();
  },

  async asks(page, seen, shot) {
    await page.goto(`${args.url}/console/#/health`);
    await page.getByRole("button", { name: "Ask the doctor" }).click();
    await page.locator(".findings li").first().waitFor({ timeout: 20000 });
    seen.findings = await page.locator(".findings li").count();
    await shot(page, "console-doctor");
  },
};

// Two browsers look at one store; nginx is reloaded, and the network goes away and comes back.
async function watches(context, page, seen) {
  const other = await (await context("phone")).newPage();
  await other.goto(`${args.url}/console/#/tasks?user_id=live`);
  await other.locator(".empty").waitFor();
  await page.goto(`${args.url}/console/#/tasks?user_id=live`);
  await page.locator(".empty").waitFor();
  const first = await job("seen at once", "live");
  await Promise.all([row(page, first).waitFor(), row(other, first).waitFor()]);
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("p");
  await page.locator(".live.paused").waitFor();
  const second = await job("stored while it is paused", "live");
  await row(other, second).waitFor();
  await page.bringToFront();
  await page.evaluate(() => window.dispatchEvent(new Event("focus")));
  seen.paused = await row(page, second).count();
  await page.keyboard.press("p");
  await row(page, second).waitFor();
  process.kill(args.pid, "SIGHUP");
  await other.waitForTimeout(300);
  const third = await job("stored after a reload", "live");
  await Promise.all([row(page, third).waitFor({ timeout: 20000 }), row(other, third).waitFor({ timeout: 20000 })]);
  await row(page, third).locator("input").click();
  await act(page, "Cancel");
  await dialog(page).getByRole("button", { name: "Cancel 1 task" }).click();
  await dialog(page).getByRole("heading", { name: /Done|Not all/ }).waitFor();
  await dialog(page).getByRole("button", { name: "Close" }).click();
  await row(other, third).locator(".badge.cancelled").waitFor();
  await other.route("**/api/live", (route) => route.abort());
  process.kill(args.pid, "SIGHUP"); // which ends the stream
  await other.locator(".live.lost").waitFor({ timeout: 20000 });
  seen.lost = await other.locator(".live").innerText();
  await other.unroute("**/api/live");
  await other.locator(".live.on").waitFor({ timeout: 20000 });
  await other.context().close();
}

async function harmless(context, seen) {
  const page = await open(await context(), "/look/");
  await page.waitForSelector(".listing table");
  seen.readonly = await page.locator(".acts button, input[type=checkbox]").count();
  await page.goto(`${args.url}/private/#/tasks`);
  await page.waitForSelector(".listing table");
  seen.hidden = !(await page.locator("main").innerText()).match(/fox|ann|sale-/);
  await page.goto(`${args.url}/private/#/task/${args.refs.done}`);
  await page.locator(".timeline").waitFor();
  seen.hiddenstory = !(await page.locator("main").innerText()).match(/fox|ann|sale-/);
  seen.quiet = await page.evaluate(() => window.broken);
  await page.context().close();
}

await visit(async ({ context, shot }) => {
  const seen = {};
  const page = await open(await context("light", { permissions: [] }), "/console/");
  await page.waitForSelector(".listing table");
  seen.paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
  seen.bytes = await page.evaluate(() => performance.getEntriesByType("resource").filter((r) => r.name.includes("/assets/")).reduce((n, r) => n + r.decodedBodySize, 0));
  for (const step of Object.keys(steps)) {
    try { await steps[step](page, seen, shot); } catch (err) { throw new Error(`${step}: ${err.message}`); }
  }
  await watches(context, page, seen);
  seen.broken = await page.evaluate(() => window.broken);
  seen.alarmed = page.alarmed || false;
  await harmless(context, seen);
  return seen;
});
