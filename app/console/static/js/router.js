/** Addresses of the console below the server's root, and what shows them. */

import { ROOT } from "./api.js";

const BASE = new URL("console/", ROOT);
const listeners = [];

/** The path below /console/, without slashes at its ends; empty for the start page. */
export function current() {
  const path = location.pathname.startsWith(BASE.pathname) ? location.pathname.slice(BASE.pathname.length) : "";
  return decodeURI(path).replace(/^\/+|\/+$/g, "");
}

export const link = (path) => (path ? new URL(path, BASE).href : ROOT.href);

export function go(path, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", link(path));
  for (const listener of listeners) listener(current());
}

export function onNavigate(listener) {
  listeners.push(listener);
}

addEventListener("popstate", () => listeners.forEach((listener) => listener(current())));

/** Links of this page open without loading it again. */
addEventListener("click", (event) => {
  const anchor = event.target.closest?.("a[data-go]");
  if (!anchor || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  go(anchor.dataset.go);
});
