// Writes postcards as a person would.  args: url, provider (the simulator's address)
import { args, faults, visit } from "./open.mjs";

const PROMPTS = [
  "a lighthouse in the first snow --ar 3:2", "a fox who runs a bookshop, gouache", "tram 28 in Lisbon, early morning, long shadows",
  "an owl at night over the old harbour, woodcut", "tea on a balcony in Kyoto, rain, ink and watercolour", "a greenhouse on the moon",
  "<b>bold</b> & \"quoted\" prompt", "the last table at a seaside café in October",
];

const control = async (name, body) => {
  const answer = await fetch(`${args.provider}/_sim/${name}`, body && { method: "POST", body: JSON.stringify(body) });
  return answer.json();
};

await visit(async ({ context, shot }) => {
  const seen = {};
  const person = await context();
  const page = await person.newPage();
  await page.goto(args.url);
  seen.empty = await page.locator(".empty").textContent();
  await shot(page, "postcards-empty");

  const write = async (prompt) => {
    await page.fill("#prompt", prompt);
    await Promise.all([page.waitForURL(args.url + "/"), page.click("button")]);
  };
  const settled = (n) => page.waitForFunction((k) => document.querySelectorAll(".succeeded img").length >= k, n);
  const end = async (status) => {
    const { submissions } = await control("ledger");
    await control("finish", { taskId: submissions.at(-1).taskId, status, failReason: "a banned word" });
  };

  // A card that waits, and then shows its picture without a reload.
  await write(PROMPTS[0]);
  seen.waits = await page.locator("[data-waits] [role=status]").first().textContent();
  await page.evaluate(() => { window.same = true; });
  await end(1);
  await settled(1);
  seen.same_page = await page.evaluate(() => window.same === true);
  seen.loaded = await page.locator(".succeeded img").first().evaluate((i) => i.decode().then(() => i.naturalWidth > 0));

  for (const prompt of PROMPTS.slice(1)) {
    await write(prompt);
    if (prompt !== PROMPTS.at(-1)) await end(prompt === PROMPTS[5] ? 2 : 1);
  }
  await page.waitForFunction(() => document.querySelectorAll("[data-waits]").length === 1);
  await shot(page, "postcards-light");
  seen.first_page = await page.locator(".prompt").allTextContents();
  seen.failed = await page.locator(".failed [role=status]").textContent();
  seen.bold = await page.locator(".prompt b").count();
  Object.assign(seen, await faults(page));
  const cookies = await person.storageState();

  for (const look of ["dark", "phone"]) {
    const other = await (await context(look, { storageState: cookies })).newPage();
    await other.goto(args.url);
    await other.waitForLoadState("load");
    await shot(other, `postcards-${look}`);
    seen[look] = await faults(other);
    if (look === "dark") seen.dark.ground = await other.evaluate(() => getComputedStyle(document.body).backgroundColor);
  }

  // Pages.
  await page.click("nav a[rel=next]");
  await page.waitForURL(/before=/);
  seen.second_page = await page.locator(".prompt").allTextContents();
  await page.click("nav a[rel=prev]");
  seen.back = await page.locator(".prompt").allTextContents();

  // The same form sent twice makes one card; a stranger's form makes none; another visitor sees none.
  await page.goto(args.url);
  const form = await page.evaluate(() => Object.fromEntries(new FormData(document.querySelector("form"))));
  const post = (fields) => person.request.post(args.url + "/cards", { form: fields, maxRedirects: 0 });
  seen.twice = [(await post({ ...form, prompt: "twice" })).status(), (await post({ ...form, prompt: "twice" })).status()];
  seen.forged = (await post({ ...form, key: "another-key-entirely", token: "x", prompt: "forged" })).status();
  seen.no_prompt = (await post({ token: form.token, key: "without-a-prompt" })).status();
  seen.get = (await person.request.get(args.url + "/cards?prompt=x", { maxRedirects: 0 })).status();
  const stranger = await (await context()).newPage();
  await stranger.goto(args.url);
  seen.stranger = await stranger.locator(".card").count();
  const ref = await page.locator(".card").first().getAttribute("data-ref");
  seen.stranger_card = (await stranger.request.get(`${args.url}/cards/${ref}`)).status();
  seen.jobs = (await control("ledger")).submissions.length;
  return seen;
});
