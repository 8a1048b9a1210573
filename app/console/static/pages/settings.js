/** The configuration in effect: every setting, secrets masked. */

import { get } from "../js/api.js";
import { fill, h, pageHead } from "../js/dom.js";

export const page = () => new SettingsPage();

class SettingsPage {
  title = "Settings";

  constructor() {
    this._words = h("input", { type: "text", class: "grow", placeholder: "Find a setting", "aria-label": "Find a setting", oninput: () => this._draw() });
    this._changed = h("input", { type: "checkbox", checked: true, onchange: () => this._draw() });
    this._place = h("div");
    this.element = h("div.page", null, pageHead("Settings", "The configuration in effect, as the environment gave it; secrets are masked."),
      h("div.filters", null, this._words, h("label.check", null, this._changed, "Only what differs from the default")), this._place);
  }

  async show() {
    this._found = await get("/admin/configuration");
    this._draw();
  }

  _draw() {
    const words = this._words.value.toLowerCase();
    const shown = (this._found ?? []).filter((one) => (!this._changed.checked || !one.is_default) && `${one.name} ${one.meaning}`.toLowerCase().includes(words));
    const groups = [...new Set(shown.map((one) => one.group))];
    fill(this._place, groups.map((group) => section(group, shown.filter((one) => one.group === group))),
      !shown.length && h("p.faint", null, words ? "No setting has these words." : "Every setting has its default."));
  }
}

function section(group, settings) {
  return h("section.card", null, h("h2", null, group), h("dl.details.settings", null, settings.map((one) => [
    h("dt", null, h("code", null, one.name), !one.is_default && h("span.tag", null, "set")),
    h("dd", null, one.value === null || one.value === "" ? h("span.faint", null, "not set") : h("code", null, String(one.value)), h("p.faint", null, one.meaning)),
  ])));
}
