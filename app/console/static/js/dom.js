/** Elements, icons and formats. Text always becomes text: no function here parses HTML. */

const SVG = "http://www.w3.org/2000/svg";

const ICONS = {
  chat: "M4 5h16v11H9l-5 4z",
  inbox: "M4 13 6.5 5h11L20 13v6H4zM4 13h5l1.5 2.5h3L15 13h5",
  runs: "M4 6h10M4 12h16M4 18h7",
  cron: "M12 21a9 9 0 1 1 0-18 9 9 0 0 1 0 18zM12 7v5l3.5 2",
  store: "M4 6c0-3.5 16-3.5 16 0v12c0 3.5-16 3.5-16 0zM4 6c0 3.5 16 3.5 16 0M4 12c0 3.5 16 3.5 16 0",
  documents: "M7 3h7l4 4v14H7zM14 3v4h4M10 12h5M10 16h5",
  webhooks: "M4 12h12M11 6l6 6-6 6M20 5v14",
  usage: "M4 20V10M10 20V4M16 20v-8M21 20H3",
  queue: "M4 5h9M4 10h9M4 15h9M4 20h9M17 8v9M14 14l3 3 3-3",
  settings: "M4 7h9M17 7h3M15 5v4M4 12h3M11 12h9M9 10v4M4 17h9M17 17h3M15 15v4",
  health: "M3 12h4l2.5-6 4 12 2.5-6H21",
  agents: "M12 4v3M6 7h12v11H6zM9.5 12v1M14.5 12v1M3 11v4M21 11v4",
  plus: "M12 5v14M5 12h14",
  send: "M12 20V5M5.5 11.5 12 5l6.5 6.5",
  stop: "M7 7h10v10H7z",
  menu: "M4 7h16M4 12h16M4 17h16",
  close: "M6 6l12 12M18 6 6 18",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  redo: "M20 11a8 8 0 1 0-2 6M20 4v7h-7",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  fork: "M6 4v16M18 4v4c0 4-12 3-12 8",
  clock: "M12 21a9 9 0 1 1 0-18 9 9 0 0 1 0 18zM12 7v5l3.5 2",
  history: "M4 12a8 8 0 1 0 2.5-5.800M4 4v4h4M12 8v4l3 2",
  code: "M8 7l-5 5 5 5M16 7l5 5-5 5",
  tool: "M14.5 6a4 4 0 0 0-5 5L4 16.5 7.5 20l5.5-5.5a4 4 0 0 0 5-5l-2.5 2.5-3-3z",
  attach: "M19 11l-7.5 7.5a4.5 4.5 0 0 1-6.400-6.400L13 4.5a3 3 0 0 1 4.300 4.300L9.5 16.5a1.5 1.5 0 0 1-2.100-2.100L14 8",
  check: "M5 12.5 10 17.5 19 7",
  sun: "M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.400 1.400M17.600 17.600 19 19M5 19l1.400-1.400M17.600 6.400 19 5",
  moon: "M20 14A8.5 8.5 0 1 1 10 4a7 7 0 0 0 10 10z",
  down: "M6 9l6 6 6-6",
  search: "M10.5 4a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13zM15.5 15.5 20 20",
  key: "M8 12a4 4 0 1 1 0 5 4 4 0 0 1 0-5zM11 13 20 4M17 7l3 3",
  warn: "M12 4 2.5 20h19zM12 10v4M12 17v.5",
  brain: "M9 4a3 3 0 0 0-3 3 3 3 0 0 0-1 5 3 3 0 0 0 2 5 3 3 0 0 0 5 1V5.5A2.5 2.5 0 0 0 9 4zM15 4a3 3 0 0 1 3 3 3 3 0 0 1 1 5 3 3 0 0 1-2 5 3 3 0 0 1-5 1",
  play: "M8 5l11 7-11 7z",
};

/**
 * Create an element. `tag` may have classes ("div.card.wide"); properties that start with "on" are listeners, "class"
 * adds classes, the others are attributes, where false, null and undefined leave them out. Children may be nested
 * lists, nodes, texts, numbers or nothing.
 */
export function h(tag, properties, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "class") element.classList.add(...value.split(" ").filter(Boolean));
    else if (key === "value") element.value = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  add(element, children);
  return element;
}

/** Append children as `h` does. */
export function add(element, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

/** Replace all children. */
export function fill(element, ...children) {
  element.replaceChildren();
  return add(element, children);
}

/** Make `nodes` the children; those that stay are not moved, so that their focus and their open parts stay too. */
export function keep(element, nodes) {
  const wanted = new Set(nodes);
  for (const child of [...element.childNodes]) if (!wanted.has(child)) child.remove();
  nodes.forEach((node, index) => {
    if (element.childNodes[index] !== node) element.insertBefore(node, element.childNodes[index] ?? null);
  });
}

/** Return an icon that assistive technology skips: the control around it has the name. */
export function icon(name, size = 18) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", width: size, height: size, "aria-hidden": "true" })) {
    svg.setAttribute(key, value);
  }
  svg.classList.add("icon");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name] ?? ICONS.close);
  svg.append(path);
  return svg;
}

/** Return an SVG element with attributes and children. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  return add(element, children);
}

/** Return a button with an icon and, for those who do not see it, its name. */
export function iconButton(name, label, onclick, properties = {}) {
  return h("button.icon-button", { type: "button", title: label, "aria-label": label, onclick, ...properties }, icon(name));
}

export function button(label, onclick, { kind = "", glyph = "", ...properties } = {}) {
  return h("button.button", { type: "button", class: kind, onclick, ...properties }, glyph && icon(glyph, 16), label);
}

const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "narrow" });
const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];

/** Return a time element such as "5 min. ago", whose title is the full date. */
export function ago(text) {
  if (!text) return h("span.faint", null, "–");
  const date = new Date(text);
  const seconds = (date - Date.now()) / 1000;
  const [unit, size] = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? ["second", 1];
  const shown = Math.abs(seconds) < 10 ? "now" : RELATIVE.format(Math.round(seconds / size), unit);
  return h("time", { datetime: text, title: DATE.format(date) }, shown);
}

export const fullDate = (text) => (text ? DATE.format(new Date(text)) : "–");

export function duration(milliseconds) {
  if (!Number.isFinite(milliseconds)) return "–";
  if (milliseconds < 1000) return `${Math.max(0, Math.round(milliseconds))} ms`;
  if (milliseconds < 60_000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return `${Math.floor(milliseconds / 60_000)} min ${Math.round((milliseconds % 60_000) / 1000)} s`;
}

const NUMBER = new Intl.NumberFormat();
export const number = (value) => NUMBER.format(value);

const MONEY = new Intl.NumberFormat("en", { style: "currency", currency: "USD" });
const SMALL_MONEY = new Intl.NumberFormat("en", { style: "currency", currency: "USD", maximumSignificantDigits: 2 });
/** Dollars; of small amounts two digits that count. */
export const dollars = (value) => (value && Math.abs(value) < 0.1 ? SMALL_MONEY : MONEY).format(value);

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB"];
  const power = value < 1000 ? 0 : Math.min(3, Math.floor(Math.log10(value) / 3));
  return `${power ? (value / 1000 ** power).toFixed(1) : value} ${units[power]}`;
}

/** Return a value as indented JSON text, cut where a page would suffer. */
export function pretty(value, limit = 100_000) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2) ?? "";
  return text.length > limit ? `${text.slice(0, limit)}\n… ${number(text.length - limit)} characters more` : text;
}

export const status = (name) => h(`span.status.${name}`, null, name.replaceAll("_", " "));

/** A number with its noun: "1 step", "2 steps". */
export const counted = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : "s"}`;

/** Copy a text, and show on `button` whether that was possible. */
export async function copy(text, button) {
  const copied = await (navigator.clipboard?.writeText(text) ?? Promise.reject()).then(() => true, () => copySelected(text));
  if (button.dataset.copied) return;
  button.dataset.copied = String(copied);
  const before = [...button.childNodes];
  fill(button, icon(copied ? "check" : "warn"));
  if (!copied) button.title = "This browser allows no copying here: select the text";
  setTimeout(() => {
    fill(button, before);
    delete button.dataset.copied;
  }, 1200);
}

/** Copy by a selection: the clipboard's own interface exists on secure origins alone, and may be forbidden. */
function copySelected(text) {
  const place = h("textarea", { class: "visually-hidden", readonly: true, "aria-hidden": "true", value: text });
  const focused = document.activeElement;
  document.body.append(place);
  place.select();
  const copied = document.execCommand("copy");
  place.remove();
  focused?.focus({ preventScroll: true });
  return copied;
}

/** Return a heading with the elements next to it. */
export function pageHead(title, description, ...actions) {
  return h("header.page-head", null, h("div", null, h("h1", null, title), h("p.faint", null, description)),
    h("div.actions", null, actions));
}

export const empty = (title, text, ...more) => h("div.empty", null, h("h2", null, title), h("p", null, text), more);

/** Return an element that shows and announces the errors of a form. */
export function problemPlace() {
  const place = h("p.problem", { role: "alert", hidden: true });
  place.show = (error) => {
    place.hidden = !error;
    place.textContent = error ? (error.detail ?? error.message ?? String(error)) : "";
  };
  return place;
}
