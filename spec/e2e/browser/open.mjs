// What every visit needs: a browser that is closed in the end, pages in light, dark and phone, the visit's arguments.
import { createRequire } from "node:module";
import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";

const { chromium } = createRequire(process.env.PLAYWRIGHT_MODULES + "/")("playwright-core");

export const args = JSON.parse(process.argv[2]);
const shots = process.env.MJHOOK_SHOTS;

const LOOKS = {
  light: { viewport: { width: 1200, height: 900 }, colorScheme: "light" },
  dark: { viewport: { width: 1200, height: 900 }, colorScheme: "dark" },
  phone: { viewport: { width: 390, height: 844 }, colorScheme: "light", isMobile: true, hasTouch: true, deviceScaleFactor: 2 },
};

// visit(async ({ context, shot }) => what was seen)
export async function visit(steps) {
  const executablePath = spawnSync("sh", ["-c", "command -v chromium"]).stdout.toString().trim();
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"] });
  const trouble = [];
  const context = async (look = "light", more = {}) => {
    const made = await browser.newContext({ ...LOOKS[look], ...more });
    made.setDefaultTimeout(30000);
    made.on("console", (m) => m.type() === "error" && trouble.push(m.text()));
    made.on("weberror", (e) => trouble.push(String(e.error())));
    return made;
  };
  const shot = async (page, name) => {
    if (!shots) return;
    mkdirSync(shots, { recursive: true });
    await page.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
  };
  try {
    const seen = await steps({ context, shot });
    console.log(JSON.stringify({ ...seen, trouble }));
  } finally {
    await browser.close();
  }
}

// Whether a page is wider than its window, and which buttons and links have no name.
export const faults = (page) =>
  page.evaluate(() => ({
    overflow: document.documentElement.scrollWidth > window.innerWidth,
    unnamed: [...document.querySelectorAll("a, button, input:not([type=hidden]), textarea, select")]
      .filter((e) => !(e.textContent.trim() || e.getAttribute("aria-label") || e.labels?.length || e.querySelector("img[alt]:not([alt=''])")))
      .map((e) => e.outerHTML.slice(0, 80)),
  }));
