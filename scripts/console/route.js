// The address: #/view?name=value. What is behind the "#" goes to no server, and can be shared.
export function current() {
  const [path, search] = location.hash.replace(/^#\/?/, "").split("?");
  const [view, ...rest] = (path || "tasks").split("/");
  return { view, id: decodeURIComponent(rest.join("/")), params: Object.fromEntries(new URLSearchParams(search || "")) };
}

export function href(view, params, id) {
  const kept = new URLSearchParams();
  for (const [name, value] of Object.entries(params || {}))
    if (value !== undefined && value !== null && value !== "") kept.set(name, value);
  const search = kept.toString();
  return `#/${view}${id ? "/" + encodeURIComponent(id) : ""}${search ? "?" + search : ""}`;
}

export const go = (address) => { location.hash = address.slice(1); };
export const taskHref = (ref) => href("task", null, ref);
