// Every view of the console in light, dark and on a phone: what axe-core finds, what is too wide, what the CSP blocked.
// args: url, refs (by name)
import { createRequire } from "node:module";
import { args, faults, visit } from "./open.mjs";

const axe = createRequire(process.env.PLAYWRIGHT_MODULES + "/").resolve("axe-core/axe.min.js");
const VIEWS = [
  ["tasks", "#/tasks", ".listing table"], ["filtered", "#/tasks?user_id=ann&q=fox&since=7d", ".listing table, .empty"],
  ["none", "#/tasks?user_id=nobody", ".empty"],
  ["story", `#/task/${args.refs.ambiguous}`, ".timeline"], ["story-hostile", `#/task/${args.refs.hostile}`, ".timeline"], ["story-done", `#/task/${args.refs.done}`, ".timeline"],
  ["dialog", "#/tasks?user_id=bob&since=7d", ".listing table", async (page) => {
    await page.getByRole("button", { name: "Resubmit", exact: true }).click();
    await page.locator("dialog p.warn, dialog h2", { hasText: "1 task" }).waitFor();
  }],
  ["gone", "#/task/01ARZ3NDEKTSV4RRFFQ69G5FAV", ".empty"],
  ["events", "#/events?show=failing", ".listing table"], ["callbacks", "#/callbacks", ".legend"], ["accounts", "#/accounts", ".account"],
  ["health", "#/health", ".tiles"], ["gallery", "#/gallery", ".gallery"],
];

await visit(async ({ context, shot }) => {
  const seen = { violations: [], wide: [], unnamed: [], blocked: [], alien: [] };
  await Promise.all((args.looks || ["light", "dark", "phone"]).map(async (look) => {
    // axe-core is put in as a script of the page: only then the policy is not in its way. Elsewhere it is in force.
    const made = await context(look, { bypassCSP: true });
    const page = await made.newPage();
    page.on("request", (r) => { if (!r.url().startsWith(args.url) && !r.url().startsWith("data:")) seen.alien.push(r.url()); });
    for (const [name, hash, ready, then] of VIEWS) {
      await page.goto(`${args.url}/console/${hash}`);
      await page.waitForSelector(ready);
      await then?.(page);
      await page.waitForTimeout(50); // the count beside the listing
      const found = await faults(page);
      if (found.overflow) seen.wide.push(`${name} ${look}`);
      seen.unnamed.push(...found.unnamed);
      await shot(page, `console-${name}-${look}`);
      // What differs from light: in dark the colours, on a phone the layout of some views.
      if (look === "phone" && !["tasks", "story-hostile", "events", "health"].includes(name)) continue;
      await page.addScriptTag({ path: axe });
      const result = await page.evaluate((only) => window.axe.run(document, { resultTypes: ["violations"], ...only }),
        look === "dark" ? { runOnly: ["color-contrast"] } : {});
      for (const v of result.violations) for (const n of v.nodes) seen.violations.push(`${name} ${look}: ${v.id}: ${n.target.join(" ")}: ${n.failureSummary.replace(/\s+/g, " ").slice(0, 200)}`);
    }
    await made.close();
  }));
  return seen;
});
