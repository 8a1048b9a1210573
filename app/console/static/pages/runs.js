/** The newest threads with their runs, live: filtered, stopped, and started again. */

import { get, post, query, request, uuid } from "../js/api.js";
import { ago, button, duration, empty, fill, h, icon, pageHead, problemPlace, status } from "../js/dom.js";
import { link } from "../js/router.js";
import { agentName, agents, THREAD_FIELDS, titleOf } from "../js/state.js";
import { sureButton } from "../js/table.js";

const POLL_MS = 3000;
const THREADS = 25;
const FIELDS = ["run_id", "thread_id", "assistant_id", "status", "created_at", "updated_at"].map((name) => `select=${name}`).join("&");
const LIVE = new Set(["pending", "running"]);

export const page = () => new RunsPage();

class RunsPage {
  title = "Runs";

  constructor() {
    this._known = new Map();
    this._problem = problemPlace();
    this._rows = h("tbody");
    this._none = h("div");
    this._status = h("select", { "aria-label": "Threads" }, [["", "all threads"], ["busy", "with a live run"], ["interrupted", "that wait"], ["error", "that failed"], ["idle", "at rest"]]
      .map(([value, label]) => h("option", { value }, label)));
    this._agent = h("select", { "aria-label": "Agent" }, h("option", { value: "" }, "all agents"), agents().map((one) => h("option", { value: one.assistant_id }, one.name)));
    for (const filter of [this._status, this._agent]) filter.addEventListener("change", () => this._load().catch((error) => this._problem.show(error)));
    this._table = h("div.table-wrap", { tabindex: "0", role: "region", "aria-label": "Runs" }, h("table", null,
      h("thead", null, h("tr", null, ["Thread", "Agent", "Status", "Started", "Took"].map((title) => h("th", { scope: "col" }, title)), h("th", { scope: "col" }, h("span.visually-hidden", null, "Actions")))), this._rows));
    this.element = h("div.page", null, pageHead("Runs", `The last runs of the ${THREADS} newest threads.`, sureButton("Stop all live runs", () => this._stopAll(), { kind: "danger" })),
      h("div.filters", null, this._status, this._agent), this._problem, this._table, this._none);
  }

  async show() {
    await this._load();
    this._timer = setInterval(() => !document.hidden && this._load().catch(() => {}), POLL_MS);
  }

  close() {
    clearInterval(this._timer);
  }

  async _load() {
    const filter = { ...(this._status.value && { status: this._status.value }), ...(this._agent.value && { metadata: { assistant_id: this._agent.value } }) };
    const threads = await query("/threads/search", { limit: THREADS, sort_by: "updated_at", sort_order: "desc", ...filter, ...THREAD_FIELDS });
    // a thread that did not change has the runs that are known
    const lists = await Promise.all(threads.map(async (thread) => {
      const known = this._known.get(thread.thread_id);
      if (known?.updated_at === thread.updated_at && thread.status !== "busy") return known;
      const runs = await get(`/threads/${thread.thread_id}/runs?limit=3&${FIELDS}`).catch(() => []);
      return { updated_at: thread.updated_at, runs };
    }));
    const fresh = JSON.stringify([threads, lists]);
    threads.forEach((thread, index) => this._known.set(thread.thread_id, lists[index]));
    this._problem.show(null);
    if (fresh === this._drawn && !threads.some((thread) => thread.status === "busy")) return;
    if (this._rows.contains(document.activeElement) && this._drawn === fresh) return;
    this._drawn = fresh;
    const rows = threads.flatMap((thread, index) => lists[index].runs.map((run, place) => this._row(thread, run, place === 0)));
    fill(this._rows, rows);
    this._table.hidden = !rows.length;
    fill(this._none, !rows.length && empty("No run here", "Start one in a chat, by a cron, or by the API."));
  }

  _row(thread, run, newest) {
    const path = `threads/${thread.thread_id}`;
    const live = LIVE.has(run.status);
    const took = (live ? Date.now() : Date.parse(run.updated_at)) - Date.parse(run.created_at);
    return h("tr", null,
      h("td", { dir: "auto" }, newest ? h("a", { href: link(path), "data-go": path }, titleOf(thread)) : h("span.faint", null, "↳ before")),
      h("td", null, agentName(run.assistant_id)), h("td", null, status(run.status)), h("td", null, ago(run.created_at)), h("td", null, duration(took)),
      h("td", null, h("div.actions", null, h("a.button", { href: link(`${path}/history`), "data-go": `${path}/history` }, icon("history", 15), "Steps"),
        live && button("Stop", () => this._do(() => request(`/${path}/runs/${run.run_id}/cancel`, { method: "POST", headers: { "Idempotency-Key": uuid() } }))),
        newest && !live && button("Again", () => this._do(() => this._again(thread, run))))));
  }

  /** Run the same request once more, on the state that the thread has now. */
  async _again(thread, run) {
    const { kwargs } = await get(`/threads/${thread.thread_id}/runs/${run.run_id}`);
    const { input, config, context, stream_mode } = kwargs;
    await post(`/threads/${thread.thread_id}/runs`, { assistant_id: run.assistant_id, input, config, context, stream_mode }, { once: true });
  }

  _stopAll() {
    return this._do(async () => {
      await post("/runs/cancel", { status: "all" }, { once: true }).catch((error) => {
        if (error.status !== 404) throw error;
      });
    });
  }

  async _do(act) {
    try {
      await act();
      await this._load();
    } catch (error) {
      this._problem.show(error);
    }
  }
}
