/** The queue of runs, by agent, and, for administrators, the workers of all servers. */

import { get } from "../js/api.js";
import { ago, duration, fill, h, number, pageHead } from "../js/dom.js";
import { link } from "../js/router.js";
import { Poll } from "../js/poll.js";
import { shownAgent } from "../js/state.js";
import { table } from "../js/table.js";

const EVERY_MS = 3000;

export const page = () => new QueuePage();

class QueuePage {
  title = "Queue";

  constructor() {
    this._poll = new Poll(() => this._load(), EVERY_MS);
    this._figures = h("dl.figures", { "aria-live": "off" });
    this._agents = h("div");
    this._workers = h("div");
    this.element = h("div.page", null, pageHead("Queue", "Runs that wait for a worker, and the workers.",
      h("a.button", { href: link("runs"), "data-go": "runs" }, "Runs")), this._figures, this._agents, this._workers);
  }

  show() {
    return this._poll.start();
  }

  close() {
    this._poll.stop();
  }

  async _load() {
    const [queue, workers] = await Promise.all([get("/queue"), get("/admin/workers").catch((error) => error)]);
    const figure = (name, value, note) => h("div.card", null, h("dt", null, name), h("dd", null, value), note && h("dd.faint", null, note));
    fill(this._figures, figure("Waiting", number(queue.pending), "due, for a worker or for their thread's turn"),
      figure("Longest wait", queue.oldest_due ? duration(Date.now() - Date.parse(queue.oldest_due)) : "–"),
      figure("Running", number(queue.running)), figure("Scheduled", number(queue.scheduled), "for later"));
    fill(this._agents, queue.agents.length > 0 && cells("Queue by agent", ["Agent", "Waiting", "Running", "Scheduled", "Oldest waits since"],
      queue.agents.map((one) => [shownAgent(one.agent) || "a deleted assistant", number(one.pending), number(one.running), number(one.scheduled), one.oldest_due ? ago(one.oldest_due) : "–"])));
    fill(this._workers, workers instanceof Error ? h("p.faint", null, `Workers: ${workers.detail ?? workers.message}`) : shown(workers));
  }
}

function shown({ processes, alive, holders }) {
  return [h("h2.section", null, "Workers"), h("p.faint", null, `${number(alive)} of ${number(processes)} worker processes of this server live. `,
    holders.length ? "Processes of all servers that hold runs, of all tenants:" : "No process holds a run now."),
  holders.length > 0 && cells("Workers that hold runs", ["Server", "Worker", "Runs", "Oldest began", "Lease until"],
    holders.map((one) => [h("code", null, one.server), h("code", null, one.worker.slice(14)), number(one.runs), ago(one.oldest_started_at), ago(one.lease_until)]))];
}

const cells = (label, titles, rows) => table(label, titles, rows.map((row) => h("tr", null, row.map((cell) => h("td", null, cell)))));
