/** Tables of what a search found, with pages, and the states in between. */

import { add, button, fill, h, problemPlace } from "./dom.js";

/**
 * A table that loads page after page. `load(offset)` returns a list; `columns` are `[title, cell(entry), class]`;
 * `none` is shown where nothing was found.
 */
export class Listing {
  constructor({ load, columns, none, page = 50, label }) {
    Object.assign(this, { _load: load, _columns: columns, _none: none, _page: page });
    this._rows = h("tbody");
    this._problem = problemPlace();
    this._more = button("More", () => this.more());
    this._table = h("div.table-wrap", { tabindex: "0", role: "region", "aria-label": label }, h("table", null,
      h("thead", null, h("tr", null, columns.map(([title, , kind]) => h("th", { class: kind ?? "", scope: "col" }, title || h("span.visually-hidden", null, "Actions"))))), this._rows));
    this._empty = h("div");
    this.element = h("div", null, this._problem, this._table, this._empty, h("div.buttons", null, this._more));
  }

  async reload() {
    this._count = 0;
    this._turn = Symbol("turn");
    await this.more(true);
  }

  async more(fresh = false) {
    const turn = this._turn;
    try {
      const found = await this._load(this._count);
      if (turn !== this._turn) return;
      if (fresh) this._rows.replaceChildren();
      this._count += found.length;
      add(this._rows, found.map((entry) => h("tr", null, this._columns.map(([, cell, kind]) => h("td", { class: kind ?? "" }, cell(entry))))));
      this._more.hidden = found.length < this._page;
      this._table.hidden = !this._count;
      fill(this._empty, !this._count && this._none);
      this._problem.show(null);
    } catch (error) {
      this._table.hidden = !this._count;
      this._more.hidden = true;
      this._problem.show(error);
    }
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
