/** Markdown as safe nodes: parsed by marked, cleaned by DOMPurify, and only then part of the page. */

import { marked } from "../vendor/marked.js";
import "../vendor/purify.js";
import { h, iconButton, copy, number } from "./dom.js";
import { growing } from "./growing.js";
import { highlight } from "./highlight.js";
import { scrollable } from "./table.js";

const MAX_PARSED = 150_000;
/** Characters shown at once of a text that is too long to parse. */
const MAX_SHOWN = 100_000;

const ALLOWED_TAGS = [
  "a", "b", "blockquote", "br", "code", "del", "details", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img",
  "input", "kbd", "li", "ol", "p", "pre", "s", "strong", "sub", "summary", "sup", "table", "tbody", "td", "th", "thead",
  "tr", "ul", "span",
];
const CLEAN = {
  ALLOWED_TAGS,
  ALLOWED_ATTR: ["href", "src", "alt", "title", "class", "start", "type", "checked", "disabled", "align", "open"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|data:image\/(?:png|jpeg|gif|webp);)/i,
  ADD_URI_SAFE_ATTR: ["start", "type", "align"], // no addresses: the expression above is not for them
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

marked.use({ gfm: true, breaks: false });

function clean(tokens) {
  const fragment = globalThis.DOMPurify.sanitize(marked.parser(tokens), CLEAN);
  for (const anchor of fragment.querySelectorAll("a")) {
    anchor.target = "_blank";
    anchor.rel = "noopener noreferrer nofollow";
  }
  for (const image of fragment.querySelectorAll("img")) {
    // an image of another host would tell that host who reads this
    if (!/^data:/i.test(image.getAttribute("src") ?? "")) image.replaceWith(outsideImage(image));
    else image.loading = "lazy";
  }
  for (const input of fragment.querySelectorAll("input")) {
    if (input.type === "checkbox") input.setAttribute("aria-label", "task");
    else input.remove();
  }
  for (const element of fragment.querySelectorAll("[class]")) {
    // other classes are the console's own: a text could look like a part of the page
    element.className = [...element.classList].filter((name) => name.startsWith("language-")).join(" ");
  }
  for (const block of fragment.querySelectorAll("pre > code")) frame(block);
  for (const table of fragment.querySelectorAll("table")) {
    const around = scrollable("Table");
    table.replaceWith(around);
    around.append(table);
  }
  for (const element of fragment.querySelectorAll("p, li, h1, h2, h3, h4, h5, h6, blockquote, td, th")) element.dir = "auto";
  return fragment;
}

function outsideImage(image) {
  const source = image.getAttribute("src") ?? "";
  if (!/^https?:/i.test(source)) return h("span", null, image.alt);
  return h("a", { href: source, target: "_blank", rel: "noopener noreferrer nofollow" }, `Image: ${image.alt || source}`);
}

function frame(block) {
  const language = [...block.classList].find((name) => name.startsWith("language-"))?.slice(9) ?? "";
  const head = h("div.code-head", null, h("span", null, language || "text"),
    iconButton("copy", "Copy code", (event) => copy(block.textContent, event.currentTarget)));
  const around = h("div.code", null, head);
  const pre = block.parentElement;
  pre.tabIndex = 0;
  pre.replaceWith(around);
  around.append(pre);
  block.replaceChildren(...highlight(block.textContent, language));
}

/**
 * A text of Markdown that grows. Blocks that are complete keep their nodes, and so do the complete parts of a long last
 * one: a token costs about the same at the end of a long text as at its beginning.
 */
export class Markdown {
  constructor() {
    this.element = h("div.markdown");
    this._text = "";
    this._done = 0;
    this._tail = [];
    this._growing = null;
  }

  /** Show `text`; one that continues the text before costs only its end. */
  show(text) {
    if (text === this._text) return;
    if (text.length > MAX_PARSED) return this._plain(text);
    if (!text.startsWith(this._text) || this._plainly) this._reset();
    this._text = text;
    const tokens = marked.lexer(text.slice(this._done));
    // what follows empty lines may still belong to the block before them
    const at = Math.max(0, tokens.findLastIndex((token) => token.type !== "space"));
    const settled = tokens.slice(0, at);
    const render = (token) => clean(Object.assign([token], { links: tokens.links }));
    const last = tokens[at];
    if (!settled.length && last && this._growing?.show(last)) return;
    for (const node of this._tail) node.remove();
    if (settled.length) {
      settled.links = tokens.links;
      this.element.append(clean(settled));
      this._done += settled.reduce((sum, token) => sum + token.raw.length, 0);
    }
    const fragment = last ? render(last) : new DocumentFragment();
    this._tail = [...fragment.childNodes];
    this._growing = last && growing(last, fragment, render);
    this.element.append(fragment);
  }

  _reset() {
    this.element.replaceChildren();
    this._done = 0;
    this._tail = [];
    this._growing = null;
    this._plainly = false;
  }

  _plain(text) {
    this._reset();
    this._plainly = true;
    this._text = text;
    this.element.append(longText(text));
  }
}

const SAMPLES = ["Words with *emphasis*, `code` and a [link](https://a.example/).", "- one\n- two", "```python\nx = 1  # one\n```", "| a |\n|---|\n| 1 |"];

/**
 * Show a few words nowhere, one block whenever the browser has nothing to do: the first text that is parsed costs
 * some tens of milliseconds, which would be dropped frames of the first answer.
 */
export function warmUp() {
  const sample = SAMPLES.shift();
  if (!sample) return;
  const idle = globalThis.requestIdleCallback ?? ((act) => setTimeout(act, 100));
  idle(() => {
    new Markdown().show(sample);
    warmUp();
  });
}

/** Return a long text as text, the beginning first and the rest on demand. */
export function longText(text) {
  const shown = h("div.plain", { dir: "auto" }, text.slice(0, MAX_SHOWN));
  if (text.length <= MAX_SHOWN) return shown;
  const more = h("button.button", { type: "button" });
  let at = MAX_SHOWN;
  const label = () => (more.textContent = `Show more (${number(text.length - at)} characters left)`);
  more.addEventListener("click", () => {
    shown.append(text.slice(at, at + MAX_SHOWN * 5));
    at += MAX_SHOWN * 5;
    if (at >= text.length) more.remove();
    else label();
  });
  label();
  return h("div", null, shown, more);
}
