// Elements without markup: every string becomes a text node, so nothing that was written elsewhere is ever parsed.

const SVG = "http://www.w3.org/2000/svg";

const present = (children) => children.flat(9).filter((c) => c !== null && c !== undefined && c !== false);

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") {
      for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    } else if (name === "value" || name === "checked" || name === "indeterminate") {
      node[name] = value;
    } else {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...present(children));
  return node;
}

export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);
export const svg = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);

// In place of what a node had.
export const put = (node, ...children) => node.replaceChildren(...present(children));

// Controls, marks that reorder text and characters without width are shown by their code point.
const UNSEEN = new RegExp(
  "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f" +
  "\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufeff\\uffa0\\ufff0-\\ufffb]|\\udb40[\\udc00-\\udfff]", "g");

// A text from outside, as nodes.
export function foreign(text) {
  const parts = [];
  let at = 0;
  for (const match of String(text).matchAll(UNSEEN)) {
    parts.push(text.slice(at, match.index));
    const code = match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    parts.push(h("span", { class: "cp", title: "a character that is not seen" }, "U+" + code));
    at = match.index + match[0].length;
  }
  parts.push(text.slice(at));
  return h("bdi", null, parts);
}

export const link = (href, props, ...children) => h("a", { href, ...props }, ...children);
export const button = (label, click, props) => h("button", { type: "button", on: { click }, ...props }, label);

// Two ways to go on; one that leads nowhere is shown, and is no link.
export const pager = (back, on, words = ["← Newer", "Older →"]) => h("div", { class: "pages" }, [back, on].map((to, i) =>
  h("a", to ? { class: "button", href: to } : { class: "button", role: "link", "aria-disabled": "true" }, words[i])));

export function badge(state, label) {
  return h("span", { class: "badge " + state }, label || state);
}

// A message in the corner, said by screen readers.
export function toast(message, bad) {
  const node = h("div", { class: bad ? "toast bad" : "toast" }, message);
  const all = document.getElementById("toasts");
  all.append(node);
  while (all.children.length > 3) all.firstChild.remove();
  setTimeout(() => node.remove(), bad ? 9000 : 5000);
}

export function copy(text, what) {
  navigator.clipboard.writeText(text).then(() => toast(what + " copied"), () => toast("The browser does not allow copying", true));
}

// In place of an image that can't be loaded.
export const unloaded = (event) => event.target.replaceWith(h("span", { class: "noimage" }, "can't be loaded"));

export const empty = (title, advice) => h("div", { class: "empty" }, h("p", { class: "title" }, title), advice && h("p", null, advice));
export const trouble = (err, again) => h("div", { class: "empty bad", role: "alert" },
  h("p", { class: "title" }, err.message || "This could not be loaded"),
  h("p", null, err.status === 403 ? "nginx or the console refuses it." : "The store or nginx may be restarting."),
  again && button("Try again", again));
