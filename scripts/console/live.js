// The live stream: what was committed is heard of within a second. Paused, nothing on the page changes by itself.
import { get } from "./api.js";

const listeners = new Set();
let source = null, retry = 1000, timer = null;
export const state = { paused: sessionStorage.getItem("paused") === "1", connected: true, last: null };

function tell() { for (const listener of listeners) listener(state); }
export const onChange = (listener) => { listeners.add(listener); return () => listeners.delete(listener); };

function connected(is) {
  if (state.connected === is) return;
  state.connected = is;
  tell();
}

function connect() {
  clearTimeout(timer);
  if (state.paused || source) return;
  source = new EventSource("api/live");
  source.addEventListener("change", (event) => {
    retry = 1000;
    state.last = JSON.parse(event.data);
    state.connected = true;
    tell();
  });
  source.addEventListener("open", () => connected(true));
  source.addEventListener("error", () => {
    source?.close();
    source = null;
    connected(false);
    timer = setTimeout(connect, retry);
    retry = Math.min(retry * 2, 15000);
  });
}

export function pause(is) {
  state.paused = is;
  sessionStorage.setItem("paused", is ? "1" : "0");
  if (is) { source?.close(); source = null; clearTimeout(timer); state.connected = true; }
  else connect();
  tell();
}

export async function start() {
  try { state.last = await get("stats"); } catch { state.connected = false; }
  connect();
  tell();
}

// A laptop that wakes up, a tab that comes back: unless it is paused, look at once.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !state.paused && !source) connect();
});
addEventListener("pagehide", () => { source?.close(); source = null; });
addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
