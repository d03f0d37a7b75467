// Gallery: finished images, the archived files first.
import { get, settings } from "./api.js";
import { foreign, h, link, pager, put, trouble, unloaded } from "./dom.js";
import { filterChips, filterForm, filterOf, focusFilter } from "./filter.js";
import { time } from "./format.js";
import { Rows } from "./list.js";
import { href, taskHref } from "./route.js";

function choice(images) {
  return images.find((i) => i.index === 0 && i.src && i.archived) || images.find((i) => i.src && i.archived) || images.find((i) => i.src) || images[0];
}

function item(it) {
  const image = choice(it.images);
  return h("li", { class: "card picture", "data-row": it.ref, "data-href": taskHref(it.ref) }, link(taskHref(it.ref), { tabindex: "-1" },
    image?.src ? h("img", { src: image.src, loading: "lazy", referrerpolicy: "no-referrer", alt: "", on: { error: unloaded } })
      : h("span", { class: "noimage" }, it.hidden ? "hidden" : image ? (settings.images === "off" ? "images are off" : "not archived") : "no image"),
    h("span", { class: "caption clamp" }, it.hidden ? "hidden" : foreign(it.prompt || ""))),
  h("div", { class: "dim foot" }, time(it.finished_at), it.images.length > 1 && ` · ${it.images.length} images`));
}

export function show(ctx) {
  const { params } = ctx;
  const rows = new Rows(), body = h("div", null, h("div", { class: "skeleton" }));
  put(ctx.root, h("h1", { class: "unseen", tabindex: "-1" }, "Gallery"),
    settings.images === "off" ? h("p", { class: "dim note" }, 'Images are not loaded: console{ images = "archived" } shows those that were archived.') : "",
    filterForm("gallery", params), filterChips("gallery", params) || "", body);
  const filter = { ...filterOf(params), state: undefined, before: params.before, after: params.after, limit: 24 };
  async function draw() {
    try {
      const page = await get("gallery", filter, ctx.signal);
      put(body, page.items.length ? h("ul", { class: "gallery" }, page.items.map(item))
        : h("div", { class: "empty" }, h("p", { class: "title" }, page.older ? "None so far" : "No finished image"), h("p", null, "What succeeded is shown here.")),
      h("div", { class: "toolbar end" }, pager(page.newer && href("gallery", { ...params, before: "", after: page.newer }),
        page.older && href("gallery", { ...params, after: "", before: page.older }))));
      rows.settle(rows.hasFocus());
      latest = page.items[0]?.ref;
    } catch (err) {
      if (err.name !== "AbortError") put(body, trouble(err, draw));
    }
  }
  let latest = null, succeeded = null;
  draw();
  return { refresh: (state) => { // images that are loaded stay, unless there is a new one
    const n = state.last?.tasks?.succeeded;
    if (n !== succeeded && !params.before && !params.after && latest !== undefined) { if (succeeded !== null) draw(); succeeded = n; }
  }, key: (event) => rows.key(event), focusSearch: () => focusFilter(ctx.root) };
}
