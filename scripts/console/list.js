// Rows: j and k walk over them, Enter opens, x selects. One row at a time is in the tab order.
import { go } from "./route.js";

export class Rows {
  constructor(changed) { this.at = null; this.chosen = new Map(); this.changed = changed || (() => {}); }

  get all() { return [...document.querySelectorAll("[data-row]")]; }

  // After the rows were drawn anew: the same one has the focus.
  settle(focused) {
    const rows = this.all;
    let at = rows.find((row) => row.dataset.row === this.at) || rows[0];
    for (const row of rows) {
      row.tabIndex = row === at ? 0 : -1;
      row.addEventListener("focusin", () => this.mark(row));
      const box = row.querySelector("input[type=checkbox]");
      if (box) {
        box.checked = this.chosen.has(row.dataset.row);
        row.classList.toggle("chosen", box.checked);
        box.addEventListener("change", () => this.choose(row, box.checked));
      }
    }
    if (focused && at && at.dataset.row === this.at) at.focus({ preventScroll: true });
  }

  // Whether the focus is on a row, to be given back after it was drawn anew.
  hasFocus() { return Boolean(document.activeElement?.closest?.("[data-row]") === document.activeElement && document.activeElement?.dataset.row); }

  mark(row) {
    for (const other of this.all) other.tabIndex = other === row ? 0 : -1;
    this.at = row.dataset.row;
  }

  choose(row, is) {
    if (is) this.chosen.set(row.dataset.row, row.dataset.state || ""); else this.chosen.delete(row.dataset.row);
    row.classList.toggle("chosen", is);
    this.changed();
  }

  chooseAll(is) {
    for (const row of this.all) {
      const box = row.querySelector("input[type=checkbox]");
      if (box) { box.checked = is; this.choose(row, is); }
    }
  }

  clear() { this.chooseAll(false); this.chosen.clear(); this.changed(); }

  move(step) {
    const rows = this.all;
    if (rows.length === 0) return;
    const here = rows.findIndex((row) => row.dataset.row === this.at && row.contains(document.activeElement));
    const row = rows[Math.min(Math.max(here < 0 ? (step > 0 ? 0 : rows.length - 1) : here + step, 0), rows.length - 1)];
    this.mark(row);
    row.focus();
    row.scrollIntoView({ block: "nearest" });
  }

  key(event) {
    const row = document.activeElement?.closest?.("[data-row]");
    if (event.key === "j" || event.key === "k") this.move(event.key === "j" ? 1 : -1);
    else if (event.key === "Enter" && row && document.activeElement === row && row.dataset.href) go(row.dataset.href);
    else if (event.key === "x" && row?.querySelector("input[type=checkbox]")) row.querySelector("input[type=checkbox]").click();
    else return false;
    return true;
  }
}
