/** Health of every dependency, as the server sees it, once every few seconds. */

import { address, storedKey } from "../js/api.js";
import { fill, fullDate, h, pageHead, pretty, status } from "../js/dom.js";
import { Poll } from "../js/poll.js";

const EVERY_MS = 5000;
const NAMES = { llm: "Models", checkpoint_db: "Database", redis: "Redis", cache: "Cache", workers: "Workers" };

export const page = () => new HealthPage();

class HealthPage {
  title = "Health";

  constructor() {
    this._poll = new Poll(() => this._load(), EVERY_MS);
    this._place = h("div.grid", { "aria-live": "polite" });
    this._whole = h("div");
    this.element = h("div.page", null, pageHead("Health", "What this server needs, and whether it works.", this._whole), this._place);
  }

  show() {
    return this._poll.start();
  }

  close() {
    this._poll.stop();
  }

  async _load() {
    // 503 is a valid response here: it names what does not work
    const answer = await fetch(address("/health"), { headers: storedKey() ? { Authorization: `Bearer ${storedKey()}` } : {} });
    const health = await answer.json();
    fill(this._whole, status(health.status), h("span.faint", null, ` version ${health.version}`));
    fill(this._place, Object.entries(health.checks ?? {}).map(([name, { status: state, ...rest }]) => h("article.card", null,
      h("h2", null, NAMES[name] ?? name), h("p", null, status(state ?? "unknown"), typeof rest.latency_ms === "number" && h("span.faint", null, ` ${rest.latency_ms} ms`)),
      details(rest))));
  }
}

function details({ latency_ms: _, observed_at: seen, ...rest }) {
  const shown = Object.entries(rest).filter(([, value]) => value !== null && !(typeof value === "object" && !Object.keys(value).length));
  return h("dl.details", null, seen && [h("dt", null, "Seen"), h("dd", null, fullDate(seen))],
    shown.map(([name, value]) => [h("dt", null, name.replaceAll("_", " ")), h("dd", null, typeof value === "object" ? h("pre", { tabindex: "0" }, pretty(value)) : String(value))]));
}
