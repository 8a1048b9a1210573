/** Webhook deliveries: their attempts, and those that were given up, to be sent again. */

import { get, post } from "../js/api.js";
import { ago, button, empty, h, pageHead, problemPlace, status } from "../js/dom.js";
import { link } from "../js/router.js";
import { Listing } from "../js/table.js";

export const page = () => new WebhooksPage();

class WebhooksPage {
  title = "Webhooks";

  constructor() {
    this._problem = problemPlace();
    this._status = h("select", { "aria-label": "Status" }, ["", "pending", "delivered", "dead"].map((name) => h("option", { value: name }, name || "all statuses")));
    this._status.addEventListener("change", () => this._list.reload());
    this._list = new Listing({
      label: "Deliveries",
      load: (offset) => get(`/webhooks/deliveries?limit=50&offset=${offset}${this._status.value && `&status=${this._status.value}`}`),
      none: empty("No delivery", "A run with a webhook is delivered when it has ended."),
      columns: [
        ["Address", (one) => h("span.mono", null, one.url)],
        ["Status", (one) => status(one.status)],
        ["Attempts", (one) => one.attempts, "end"],
        ["Last answer", (one) => [one.answer, one.problem && h("div.faint", null, one.problem)]],
        ["Next attempt", (one) => ago(one.next_attempt_at)],
        ["Thread", (one) => h("a", { href: link(`threads/${one.thread_id}`), "data-go": `threads/${one.thread_id}` }, "open")],
        ["", (one) => button("Send again", () => this._again(one))],
      ],
    });
    this.element = h("div.page", null, pageHead("Webhooks", "Deliveries of the last thirty days, newest first.", this._status), this._problem, this._list.element);
  }

  show() {
    return this._list.reload();
  }

  async _again(one) {
    try {
      await post(`/webhooks/deliveries/${one.run_id}/retry`, undefined, { once: true });
      await this._list.reload();
    } catch (error) {
      this._problem.show(error);
    }
  }
}
