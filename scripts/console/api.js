// The JSON API. Addresses are relative to the page: the console may lie under any path.
import { setNow } from "./format.js";

let token = document.querySelector("meta[name=mjhook-token]").content;
export let settings = { actions: false, private: false, images: "off", accounts: [], states: [] };

export class Failure extends Error {
  constructor(status, code, message) { super(message); this.status = status; this.code = code; }
}

async function failure(response) {
  let told;
  try { told = (await response.json()).error; } catch { told = null; }
  return new Failure(response.status, told?.code || "http", told?.message || `The server answered ${response.status}`);
}

async function request(path, options) {
  try {
    return await fetch(path, { credentials: "same-origin", redirect: "error", ...options });
  } catch (err) {
    if (err.name === "AbortError") throw err;
    throw new Failure(0, "network", "The server can't be reached");
  }
}

export function query(values) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(values || {}))
    if (value !== undefined && value !== null && value !== "") params.set(name, Array.isArray(value) ? value.join(",") : value);
  const text = params.toString();
  return text ? "?" + text : "";
}

export async function get(name, values, signal) {
  for (let attempt = 0; ; attempt++) {
    const response = await request("api/" + name + query(values), { signal });
    if (response.status === 503 && attempt < 2) { // busy for a moment
      await new Promise((done) => setTimeout(done, 500 * (attempt + 1)));
      continue;
    }
    if (!response.ok) throw await failure(response);
    const value = await response.json();
    setNow(value.now);
    return value;
  }
}

export async function begin() {
  settings = await get("console");
  token = settings.token || token;
  return settings;
}

async function post(name, value, again) {
  const response = await request("api/" + name, {
    method: "POST", headers: { "Content-Type": "application/json", "X-Mjhook-Token": token }, body: JSON.stringify(value),
  });
  if (response.ok) return response;
  const err = await failure(response);
  if (err.code !== "token" || again) throw err;
  await begin(); // nginx was reloaded with another secret, or the token is too old
  return post(name, value, true);
}

// Does something; heard() gets each word of how far it is. Gives the report.
export async function act(wanted, heard) {
  const response = await post("act", wanted);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", report = null;
  for (;;) {
    const { value, done } = await reader.read();
    rest += value || "";
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const said = JSON.parse(line);
      if (said.error) throw new Failure(200, said.error.code, said.error.message);
      if (said.progress) heard?.(said.progress);
      report = said.report || report;
    }
    if (done) break;
  }
  if (!report) throw new Failure(0, "network", "The connection ended before the report: what was done is in the store");
  return report;
}

export const doctor = async () => (await post("doctor", {})).json();
