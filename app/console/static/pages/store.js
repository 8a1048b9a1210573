/** The long-term memory: namespaces as a tree, their items, and a search by meaning and by words. */

import { call, query } from "../js/api.js";
import { ago, button, empty, fill, h, icon, number, pageHead, pretty, problemPlace } from "../js/dom.js";
import { sureButton } from "../js/table.js";

const MAX_NAMESPACES = 1000;
const MAX_ITEMS = 100;

export const page = () => new StorePage();

class StorePage {
  title = "Memory";

  constructor() {
    this._prefix = [];
    this._tree = h("nav.card", { "aria-label": "Namespaces" });
    this._items = h("div", { "aria-live": "polite" });
    this._problem = problemPlace();
    this._query = h("input", { type: "text", placeholder: "Search by meaning and by words", "aria-label": "Search", class: "grow" });
    const search = h("form.filters", { role: "search" }, this._query, h("button.button", { type: "submit" }, icon("search", 15), "Search"));
    search.addEventListener("submit", (event) => {
      event.preventDefault();
      this._load();
    });
    this.element = h("div.page", null, pageHead("Memory", "What agents keep across threads.", button("New item", () => this._edit(null), { kind: "primary", glyph: "plus" })),
      this._problem, h("div.columns", null, this._tree, h("div", null, search, this._form = h("div"), this._items)));
  }

  async show() {
    const prefix = this._prefix;
    const { namespaces } = await query("/store/namespaces", { limit: MAX_NAMESPACES });
    if (prefix !== this._prefix) return;
    this._draw(namespaces);
    await this._load();
  }

  _draw(namespaces) {
    const root = {};
    for (const path of namespaces) path.reduce((node, label) => (node[label] ??= {}), root);
    const branch = (node, path) => h("ul.tree", null, Object.entries(node).map(([label, below]) => {
      const here = [...path, label];
      return h("li", null, this._link(label, here), Object.keys(below).length > 0 && branch(below, here));
    }));
    fill(this._tree, this._link("All", []), branch(root, []), !namespaces.length && h("p.faint", null, "No namespace yet."),
      namespaces.length === MAX_NAMESPACES && h("p.faint", null, `The first ${number(MAX_NAMESPACES)} namespaces.`));
  }

  _link(label, path) {
    const chosen = path.join("\n") === this._prefix.join("\n");
    return h("button.tree-node", { type: "button", "aria-current": chosen ? "true" : null, onclick: () => {
      this._prefix = path;
      this.show().catch((error) => this._problem.show(error));
    } }, label);
  }

  async _load() {
    const turn = (this._turn = Symbol("items"));
    try {
      const text = this._query.value.trim();
      const { items } = await query("/store/items/search", { namespace_prefix: this._prefix, limit: MAX_ITEMS, ...(text && { query: text }) });
      if (turn !== this._turn) return;
      fill(this._items, items.map((item) => this._card(item)), !items.length && empty("Nothing here", text ? "No item fits the search." : "Agents with memory write here; so may you."),
      items.length === MAX_ITEMS && h("p.faint", null, `The first ${MAX_ITEMS} items: choose a namespace, or search.`));
      this._problem.show(null);
    } catch (error) {
      if (turn === this._turn) this._problem.show(error);
    }
  }

  _card(item) {
    return h("details.card", null, h("summary", null, h("b", null, item.key), h("span.faint", null, ` ${item.namespace.join(" / ")} · `, ago(item.updated_at)),
      typeof item.score === "number" && h("span.tag", { title: "How well it fits the search" }, item.score.toFixed(3))),
    h("pre", { tabindex: "0" }, pretty(item.value)),
    h("div.buttons", null, button("Edit", () => this._edit(item), { glyph: "edit" }), sureButton("Delete", () => this._do(() =>
      call("DELETE", "/store/items", { namespace: item.namespace, key: item.key })), { kind: "danger" })));
  }

  async _do(act, place = this._problem) {
    try {
      await act();
      fill(this._form);
      place.show(null);
      await this.show();
    } catch (error) {
      place.show(error);
    }
  }

  _edit(item) {
    const namespace = h("input", { type: "text", required: true, value: (item?.namespace ?? this._prefix).join("."), "aria-label": "Namespace", placeholder: "namespace.with.dots" });
    const key = h("input", { type: "text", required: true, value: item?.key ?? "", "aria-label": "Key", placeholder: "key" });
    const value = h("textarea.code-input", { rows: "6", spellcheck: "false", "aria-label": "Value, a JSON object", value: item ? pretty(item.value, 1e7) : '{\n  "text": ""\n}' });
    const place = problemPlace();
    const form = h("form.card", null, h("h2", null, item ? "Edit item" : "New item"), h("div.filters", null, namespace, key), value, place,
      h("div.buttons", null, h("button.button.primary", { type: "submit" }, "Save"), button("Cancel", () => fill(this._form))));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      try {
        const body = { namespace: namespace.value.split("."), key: key.value, value: JSON.parse(value.value) };
        this._do(() => call("PUT", "/store/items", body), place);
      } catch (error) {
        place.show(`The value is not JSON: ${error.message}`);
      }
    });
    fill(this._form, form);
    (item ? value : key).focus();
  }
}
