/** Tables: their frame, those of what a search found, with pages, and the states in between. */

import { button, fill, h, keep, problemPlace } from "./dom.js";

/** Return a frame that scrolls sideways, by the keyboard too. */
export const scrollable = (label, ...children) => h("div.table-wrap", { tabindex: "0", role: "region", "aria-label": label }, children);

/**
 * Return a table with `rows` (or the `tbody` that has them). `titles` are texts or `[text, class]`; a column without
 * one has actions.
 */
export function table(label, titles, rows, kind = "") {
  const head = titles.map((one) => {
    const [title, side] = [one].flat();
    return h("th", { scope: "col", class: side ?? "" }, title || h("span.visually-hidden", null, "Actions"));
  });
  return scrollable(label, h("table", { class: kind }, h("thead", null, h("tr", null, head)), rows instanceof Element ? rows : h("tbody", null, rows)));
}

/**
 * A table that loads page after page. `load(offset)` returns a list; `columns` are `[title, cell(entry), class]`;
 * `none` is shown where nothing was found.
 */
export class Listing {
  constructor({ load, columns, none, page = 50, label }) {
    Object.assign(this, { _load: load, _columns: columns, _none: none, _page: page, _entries: [] });
    this._rows = h("tbody");
    this._problem = problemPlace();
    this._more = button("More", () => this.more(), { hidden: true });
    this._table = table(label, columns.map(([title, , side]) => [title, side]), this._rows, columns.length > 6 ? "dense" : "");
    this._table.hidden = true;
    this._empty = h("div");
    this.element = h("div", null, this._problem, this._table, this._empty, h("div.buttons", null, this._more));
    this._last = Promise.resolve();
  }

  /** Read all that was shown again; rows whose entries are as before stay, with what is open or focused in them. */
  reload() {
    return this._inTurn(async () => {
      const found = [];
      let part;
      do {
        part = await this._load(found.length);
        found.push(...part);
      } while (part.length === this._page && found.length < this._entries.length);
      return [found, part];
    });
  }

  /** Show one page more. */
  more() {
    return this._inTurn(async () => {
      const part = await this._load(this._entries.length);
      return [[...this._entries.map(({ entry }) => entry), ...part], part];
    });
  }

  /** Do one read after the other, and show what it found: all entries, of which `part` is the last page. */
  _inTurn(read) {
    this._more.disabled = true;
    const turn = (this._last = this._last.then(async () => {
      try {
        const [found, part] = await read();
        this._draw(found);
        this._more.hidden = part.length < this._page;
        fill(this._empty, !found.length && this._none);
        this._problem.show(null);
      } catch (error) {
        this._problem.show(error);
      }
      if (turn === this._last) this._more.disabled = false;
    }));
    return turn;
  }

  _draw(entries) {
    const known = new Map(this._entries.map((one) => [one.state, one.row]));
    const shown = new Map(); // an entry that a page repeats, because others were added before it, is shown once
    for (const entry of entries) {
      const state = JSON.stringify(entry);
      const row = shown.get(state)?.row ?? known.get(state) ?? h("tr", null, this._columns.map(([, cell, side]) => h("td", { class: side ?? "" }, cell(entry))));
      shown.set(state, { entry, state, row });
    }
    this._entries = [...shown.values()];
    keep(this._rows, this._entries.map(({ row }) => row));
    this._table.hidden = !this._entries.length;
  }
}

/** A button that asks for confirmation in its place. */
export function sureButton(label, act, options = {}) {
  const start = button(label, () => {
    const yes = button(`${label}?`, async () => {
      yes.disabled = true;
      try {
        await act();
      } finally {
        yes.replaceWith(start);
      }
    }, { kind: "danger" });
    yes.addEventListener("blur", () => !yes.disabled && yes.isConnected && yes.replaceWith(start));
    start.replaceWith(yes);
    yes.focus();
  }, options);
  return start;
}
