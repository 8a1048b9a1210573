/** The frame of all pages: navigation, threads, theme, the key, and whether the server answers. */

import { get, keepKey, renewBy, ROOT, signals, storedKey } from "./api.js";
import { ago, button, fill, h, icon, iconButton, problemPlace } from "./dom.js";
import { keepFocus } from "./focus.js";
import { loadPrices } from "./prices.js";
import { current, go, link, onNavigate } from "./router.js";
import { canSignIn, renew, signedIn, signIn, signOut } from "./signin.js";
import { changes, loadAgents, loadThreads, recentThreads, SHOWN, titleOf, waitingThreads } from "./state.js";
import { ChatPage } from "../pages/chat.js";

const THEME = "agent-service.theme";
const THREADS_EVERY = 15_000;

const NAVIGATION = [
  ["inbox", "Inbox", "inbox"], ["runs", "Runs", "runs"], ["agents", "Agents", "agents"], ["store", "Memory", "store"],
  ["documents", "Documents", "documents"], ["crons", "Crons", "cron"], ["webhooks", "Webhooks", "webhooks"],
  ["queue", "Queue", "queue"], ["usage", "Usage", "usage"], ["health", "Health", "health"], ["settings", "Settings", "settings"],
];

/** Pages by the first part of their address; each is loaded when it is first opened. */
const PAGES = {
  inbox: () => import("../pages/inbox.js"),
  agents: () => import("../pages/agents.js"),
  call: () => import("../pages/call.js"),
  compare: () => import("../pages/compare.js"),
  store: () => import("../pages/store.js"),
  documents: () => import("../pages/documents.js"),
  crons: () => import("../pages/crons.js"),
  webhooks: () => import("../pages/webhooks.js"),
  runs: () => import("../pages/runs.js"),
  queue: () => import("../pages/queue.js"),
  usage: () => import("../pages/usage.js"),
  health: () => import("../pages/health.js"),
  settings: () => import("../pages/settings.js"),
};

class App {
  constructor() {
    this._main = h("main", { id: "main", tabindex: "-1" });
    this._threads = h("nav.threads", { "aria-label": "Threads" });
    this._badge = h("span.badge", { hidden: true });
    this._banner = h("div.banner", { role: "status", hidden: true }, h("span.pulse"), "The server does not answer. What you see stays; it goes on when the server is back.");
    this._links = h("nav.pages", { "aria-label": "Pages" }, NAVIGATION.map(([path, label, glyph]) =>
      h("a.nav", { href: link(path), "data-go": path, "data-page": path }, icon(glyph), h("span", null, label), path === "inbox" && this._badge)));
    this._filter = h("input", { type: "search", placeholder: "Find a thread", "aria-label": "Find a thread" });
    this._filter.addEventListener("input", () => this._listThreads());
    this._side = h("aside.side", { id: "side", "aria-label": "Navigation" },
      h("div.brand", null, h("a", { href: link(""), "data-go": "" }, mark(), h("span", null, "agent-service")), themeButton()),
      button("New chat", () => this._new(), { kind: "primary wide", glyph: "plus" }), this._links,
      h("div.side-label", null, "Threads"), h("div.find", null, icon("search", 15), this._filter), this._threads,
      h("div.side-foot", null, h("a", { href: new URL("docs", ROOT).href, target: "_blank", rel: "noopener" }, "API"), this._version = h("span"), this._keyPlace = h("span")));
    const top = h("header.top", null, iconButton("menu", "Menu", () => this._menu(), { "aria-controls": "side", "aria-expanded": "false" }),
      h("b", null, "agent-service"), iconButton("plus", "New chat", () => this._new()));
    this._menuButton = top.firstChild;
    this._veil = h("div.veil", { onclick: () => this._menu(false) });
    fill(document.getElementById("app"), this._banner, top, this._side, this._veil, this._main);
  }

  async start() {
    signals.addEventListener("lost", () => (this._banner.hidden = false));
    signals.addEventListener("back", () => {
      this._banner.hidden = true;
      loadThreads().catch(() => {});
    });
    signals.addEventListener("key", (event) => askKey(event.detail, this._signInProblem));
    renewBy(renew);
    keepFocus(document.getElementById("app"));
    changes.addEventListener("threads", () => this._listThreads());
    addEventListener("console:thread", () => this._mark());
    addEventListener("keydown", (event) => this._keys(event));
    // a file that is dropped next to its place would open, and replace this page
    for (const type of ["dragover", "drop"]) addEventListener(type, (event) => event.dataTransfer?.types.includes("Files") && event.preventDefault());
    document.addEventListener("visibilitychange", () => !document.hidden && loadThreads().catch(() => {}));
    onNavigate(() => this._show());
    if (canSignIn) await signedIn().catch((error) => (this._signInProblem = error));
    loadPrices();
    const known = loadAgents();
    const shown = this._show(known);
    await known.catch(() => {});
    performance.mark("console:ready");
    shown.then(loadThreads).catch(() => {}); // the page comes first: titles of long threads cost the server time
    setInterval(() => !document.hidden && loadThreads().catch(() => {}), THREADS_EVERY);
    get("/info").then((info) => (this._version.textContent = `v${info.version}`), () => {});
    this._showKey();
  }

  /** Show what the address names once the agents are `known`; a conversation asks for its own meanwhile. */
  async _show(known) {
    const path = current();
    this._menu(false);
    this._page?.close?.();
    this._page = null;
    const turn = (this._turn = Symbol(path));
    try {
      const page = await pageOf(path, known);
      if (this._turn !== turn) return page.close?.();
      this._page = page;
      await known;
      if (this._turn !== turn) return;
      const entitle = () => (document.title = `${page.title ?? "Chat"} · agent-service`);
      const was = document.activeElement;
      fill(this._main, page.element);
      if (was !== document.body && !was.isConnected) this._main.focus({ preventScroll: true });
      entitle();
      this._mark();
      await page.show?.();
      if (this._turn === turn) entitle();
    } catch (error) {
      if (this._turn === turn) this._fail(error);
    }
  }

  _fail(error) {
    fill(this._main, h("div.page", null, h("div.empty", { role: "alert" }, h("h1", null, error.status === 404 ? "Not found" : "This page could not be shown"),
      h("p", null, error.detail ?? error.message), button("Start page", () => go(""), { kind: "primary" }))));
  }

  _mark() {
    const path = current();
    for (const anchor of this._side.querySelectorAll("a[data-page]")) {
      const page = anchor.dataset.page;
      const here = path === page || path.startsWith(`${page}/`);
      if (here) anchor.setAttribute("aria-current", "page");
      else anchor.removeAttribute("aria-current");
    }
  }

  _new() {
    if (current() === "") this._page?.composer?.focus();
    go("");
  }

  _menu(open = !document.body.classList.contains("menu-open")) {
    document.body.classList.toggle("menu-open", open);
    this._menuButton.setAttribute("aria-expanded", String(open));
  }

  _keys(event) {
    if (event.key === "Escape") this._menu(false);
    if ((event.ctrlKey || event.metaKey) && event.shiftKey && event.key.toLowerCase() === "o") {
      event.preventDefault();
      this._new();
    }
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      this._menu(true);
      this._filter.focus();
    }
  }

  _listThreads() {
    const words = this._filter.value.toLowerCase();
    const shown = recentThreads().filter((thread) => !words || titleOf(thread).toLowerCase().includes(words));
    const focused = document.activeElement?.dataset?.page;
    fill(this._threads, shown.map((thread) => {
      const path = `threads/${thread.thread_id}`;
      return h("a.thread", { href: link(path), "data-go": path, "data-page": path },
        h("span.dot", { class: thread.status, title: thread.status }), h("span.thread-title", { dir: "auto" }, titleOf(thread)), ago(thread.updated_at));
    }), threadsNote(words, shown.length));
    if (focused) this._threads.querySelector(`[data-page="${CSS.escape(focused)}"]`)?.focus();
    const count = waitingThreads();
    this._badge.hidden = !count;
    this._badge.textContent = String(count);
    this._badge.setAttribute("aria-label", `${count} threads wait for an answer`);
    this._mark();
  }

  _showKey() {
    fill(this._keyPlace, storedKey() && button(canSignIn ? "Sign out" : "Forget key", () => {
      signOut();
      location.reload();
    }, { kind: "quiet" }));
  }
}

/** What stands below the listed threads: they are the newest ones, and only these are searched. */
function threadsNote(words, shown) {
  const known = recentThreads().length;
  const among = known === SHOWN ? ` of the newest ${SHOWN}` : "";
  if (words) return !shown && h("p.faint", null, `No thread${among} has these words.`);
  if (!known) return h("p.faint", null, "No thread yet.");
  return among && h("p.faint", null, `The newest ${SHOWN} threads. Their runs, and all older ones, are under Runs.`);
}

async function pageOf(path, known) {
  const [first, second, third, fourth] = path.split("/");
  if (!first) return new ChatPage("");
  if (first === "threads" && second && third === "history") {
    const { HistoryPage } = await import("../pages/history.js");
    await known;
    return new HistoryPage(second, fourth);
  }
  if (first === "threads" && second) return new ChatPage(second);
  const load = PAGES[first];
  if (!load) throw new Error(`The console has no page “${path}”.`);
  const { page } = await load();
  await known;
  return page(second, third);
}

function mark() {
  return h("span.mark", null, icon("agents", 18));
}

function themeButton() {
  const apply = (theme) => {
    document.documentElement.dataset.theme = theme;
    fill(toggle, icon(theme === "dark" ? "sun" : "moon"));
    toggle.setAttribute("aria-label", theme === "dark" ? "Light theme" : "Dark theme");
    toggle.title = toggle.getAttribute("aria-label");
  };
  const system = matchMedia("(prefers-color-scheme: dark)");
  const wanted = () => localStorage.getItem(THEME) ?? (system.matches ? "dark" : "light");
  const toggle = iconButton("moon", "Dark theme", () => {
    localStorage.setItem(THEME, document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    apply(wanted());
  });
  system.addEventListener("change", () => apply(wanted()));
  apply(wanted());
  return toggle;
}

/** Ask for an API key or a token, or to sign in at the issuer; what it gives stays in this tab. */
function askKey({ detail, given }, earlier) {
  const place = problemPlace();
  place.show(earlier ?? (detail ? { detail } : null));
  const input = h("input", { type: "password", autocomplete: "off", required: true, "aria-label": "API key or token", placeholder: "as_… or a token" });
  const enter = button("Sign in", () => signIn().catch((error) => place.show(error)), { kind: "primary wide", autofocus: true });
  const form = h("form", { method: "dialog" }, h("h2", null, icon("key"), canSignIn ? "Sign in" : "A key is needed"),
    canSignIn ? [h("p.faint", null, "This server takes tokens of its issuer, or an API key. Either is kept for this tab alone, until the tab is closed."), place,
      h("div.buttons", null, enter), h("p.or", null, "or with a key")]
      : h("p.faint", null, "This server asks for an API key or a token of its issuer. It is kept for this tab alone, until the tab is closed."),
    input, !canSignIn && place, h("div.buttons", null, h("button.button", { type: "submit", class: canSignIn ? "" : "primary" }, "Continue")));
  const dialog = h("dialog", { "aria-label": canSignIn ? "Sign in" : "A key is needed" }, form);
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    keepKey(input.value.trim());
    dialog.remove();
    given();
  });
  document.body.append(dialog);
  dialog.showModal();
}

new App().start();
