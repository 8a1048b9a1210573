/** Tables of what a search found, with pages, and the states in between. */

import { button, fill, h, keep, problemPlace } from "./dom.js";

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
    this._table = h("div.table-wrap", { tabindex: "0", role: "region", "aria-label": label }, h("table", null,
      h("thead", null, h("tr", null, columns.map(([title, , kind]) => h("th", { class: kind ?? "", scope: "col" }, title || h("span.visually-hidden", null, "Actions"))))), this._rows));
    this._table.hidden = true;
    this._empty = h("div");
    this.element = h("div", null, this._problem, this._table, this._empty, h("div.buttons", null, this._more));
  }

  /** Read all that was shown again; rows whose entries are as before stay, with what is open or focused in them. */
  reload() {
    return this._read(Math.max(this._page, this._entries.length));
  }

  /** Show one page more. */
  more() {
    return this._read(this._entries.length + this._page);
  }

  async _read(wanted) {
    const turn = (this._turn = Symbol("turn"));
    this._more.disabled = true;
    try {
      const found = [];
      let page;
      do {
        page = await this._load(found.length);
        if (turn !== this._turn) return;
        found.push(...page);
      } while (page.length === this._page && found.length < wanted);
      this._draw(found);
      this._more.hidden = page.length < this._page;
      fill(this._empty, !found.length && this._none);
      this._problem.show(null);
    } catch (error) {
      if (turn === this._turn) this._problem.show(error);
    } finally {
      if (turn === this._turn) this._more.disabled = false;
    }
  }

  _draw(entries) {
    const known = new Map(this._entries.map(([state, row]) => [state, row]));
    this._entries = entries.map((entry) => {
      const state = JSON.stringify(entry);
      return [state, known.get(state) ?? h("tr", null, this._columns.map(([, cell, kind]) => h("td", { class: kind ?? "" }, cell(entry))))];
    });
    const rows = this._entries.map(([, row]) => row);
    keep(this._rows, rows);
    this._table.hidden = !rows.length;
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
