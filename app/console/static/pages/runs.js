/** The runs of all threads, newest first and live: filtered, stopped, started again, and chosen for comparison. */

import { get, post, query, request, uuid } from "../js/api.js";
import { ago, button, duration, empty, fill, fullDate, h, keep, number, pageHead, problemPlace, status } from "../js/dom.js";
import { go, link } from "../js/router.js";
import { Poll } from "../js/poll.js";
import { agentOf, agents, INGESTION, THREAD_FIELDS, titleOf } from "../js/state.js";
import { isLive, queuedFor, searchRuns, tookFor } from "../js/runs.js";
import { sureButton, table } from "../js/table.js";

const POLL_MS = 3000;
const PAGE = 50;
const STATUSES = [["", "all statuses"], ["live", "live"], ["success", "success"], ["error", "error"], ["timeout", "timeout"], ["interrupted", "interrupted"]];
const PERIODS = [["", "at any time"], ["3600", "in the last hour"], ["86400", "in the last day"], ["604800", "in the last week"]];
const columns = () => [h("span.visually-hidden", null, "Compare"), "Thread", "Agent", "Status", "Created", ["Queue", "end"], ["Took", "end"], ["Tokens", "end"], ""];

export const page = () => new RunsPage();

class RunsPage {
  title = "Runs";

  constructor() {
    this._titles = new Map();
    this._drawn = new Map();
    this._chosen = new Map();
    this._poll = new Poll(() => this._try(() => this._refresh()), POLL_MS);
    this._problem = problemPlace();
    this._rows = h("tbody");
    this._none = h("div");
    const select = (label, options) => h("select", { "aria-label": label }, options.map(([value, text]) => h("option", { value }, text)));
    this._status = select("Status", STATUSES);
    this._agent = select("Agent", [["", "all agents"], ...agents().map((one) => [one.assistant_id, one.name])]);
    this._period = select("Created", PERIODS);
    this._metadata = h("input", { type: "text", class: "grow", "aria-label": "Metadata", placeholder: 'metadata: user=ada or {"n": 1}', spellcheck: "false" });
    for (const filter of [this._status, this._agent, this._period, this._metadata]) filter.addEventListener("change", () => this._restart());
    this._table = table("Runs", columns(), this._rows, "dense");
    this._more = button("Older runs", () => this._try(() => this._older()), { hidden: true });
    this._compare = button("Compare two", () => this._openComparison(), { disabled: true, title: "Choose two runs" });
    this.element = h("div.page.full", null, pageHead("Runs", "The runs of all threads, newest first, live.", this._compare, sureButton("Stop all live runs", () => this._stopAll(), { kind: "danger" })),
      h("div.filters", null, this._status, this._agent, this._period, this._metadata), this._problem, this._table, this._none, h("div.buttons", null, this._more));
  }

  show() {
    this._begin();
    return this._poll.start();
  }

  close() {
    this._poll.stop();
  }

  _begin() {
    this._turn = Symbol("filters");
    this._runs = [];
    this._next = null;
  }

  _restart() {
    this._begin();
    return this._try(() => this._refresh());
  }

  _filter() {
    const seconds = Number(this._period.value);
    const wanted = this._status.value;
    return {
      ...(wanted && { status: wanted === "live" ? ["pending", "running"] : wanted }),
      ...(this._agent.value && { assistant_id: this._agent.value }),
      ...(seconds && { created_after: new Date(Date.now() - seconds * 1000).toISOString() }),
      ...(this._metadata.value.trim() && { metadata: metadataOf(this._metadata.value.trim()) }),
    };
  }

  /** Read the newest page again, and those below it down to the last run that was live. */
  async _refresh() {
    const turn = this._turn;
    const reading = (this._reading = Symbol("newest"));
    const oldestLive = this._runs.findLastIndex((run) => isLive(run));
    let fresh = [];
    let next = null;
    do {
      const found = await searchRuns({ ...this._filter(), limit: PAGE, ...(next && { before: next }) });
      if (turn !== this._turn || reading !== this._reading) return; // a later answer knows more
      fresh = [...fresh, ...found.runs];
      next = found.next;
    } while (next && fresh.length <= oldestLive);
    const last = fresh.at(-1)?.run_id;
    // ids grow with time: what was shown below the pages that were read is older than their last run
    const below = next ? this._runs.filter((run) => run.run_id < last) : [];
    if (!below.length) this._next = next;
    this._runs = [...fresh, ...below];
    await this._draw(turn);
  }

  async _older() {
    const turn = this._turn;
    const found = await searchRuns({ ...this._filter(), limit: PAGE, before: this._next });
    if (turn !== this._turn) return;
    this._runs.push(...found.runs);
    this._next = found.next;
    await this._draw(turn);
  }

  async _draw(turn) {
    await this._nameThreads();
    if (turn !== this._turn) return;
    const rows = this._runs.map((run) => this._row(run));
    const known = new Set(this._runs.map((run) => run.run_id));
    for (const id of this._drawn.keys()) if (!known.has(id)) this._drawn.delete(id);
    // rows that keep their position are not touched, so that focus and an open question of a button stay
    keep(this._rows, rows);
    this._table.hidden = !rows.length;
    this._more.hidden = !this._next;
    fill(this._none, !rows.length && empty("No run here", "Start one in a chat, by a cron, or by the API."));
  }

  /** Read the first words of threads that are not known yet. */
  async _nameThreads() {
    const ids = [...new Set(this._runs.map((run) => run.thread_id))].filter((id) => !this._titles.has(id));
    for (let start = 0; start < ids.length; start += 100) {
      const part = ids.slice(start, start + 100);
      for (const id of part) this._titles.set(id, "");
      const found = await query("/threads/search", { ids: part, limit: part.length, ...THREAD_FIELDS });
      for (const thread of found) this._titles.set(thread.thread_id, titleOf(thread));
    }
  }

  _row(run) {
    const title = this._titles.get(run.thread_id);
    const state = JSON.stringify([run, title]);
    const drawn = this._drawn.get(run.run_id);
    if (drawn?.state === state) {
      drawn.tick();
      return drawn.row;
    }
    const [queue, took] = [h("td.end"), h("td.end")];
    const tick = () => {
      queue.textContent = duration(queuedFor(run));
      took.textContent = duration(tookFor(run));
    };
    tick();
    const name = run.metadata?.graph_id;
    const ingestion = name === INGESTION;
    const path = `threads/${run.thread_id}`;
    const steps = `${path}/history/${run.run_id}`;
    const shown = ingestion ? `documents/${run.metadata.document_id}` : path;
    const pick = h("input", { type: "checkbox", "aria-label": "Compare this run", title: "Compare this run", onchange: () => this._pick(run, pick) });
    pick.checked = this._chosen.has(run.run_id);
    const row = h("tr", null, h("td", null, pick),
      h("td", { dir: "auto" }, h("a.clip", { href: link(shown), "data-go": shown }, ingestion ? "Document" : title || "Thread")),
      h("td.name", null, agentOf(run)), h("td", null, status(run.status), run.attempts > 1 && h("div.several", null, `${run.attempts} attempts`), run.error && failure(run.error)),
      h("td", { title: run.started_at ? `started ${fullDate(run.started_at)}${run.ended_at ? `, ended ${fullDate(run.ended_at)}` : ""}` : "not started yet" }, ago(run.created_at)), queue, took,
      h("td.end", { title: run.usage ? `${number(run.usage.input_tokens)} in, ${number(run.usage.output_tokens)} out` : "" }, run.usage ? number(run.usage.total_tokens) : "–"),
      h("td", null, h("div.actions.tight", null, h("a.button", { href: link(steps), "data-go": steps }, "Steps"),
        isLive(run) ? button("Stop", () => this._act(() => this._stop(run))) : !ingestion && button("Again", () => this._act(() => this._again(run))))));
    this._drawn.set(run.run_id, { state, row, tick });
    return row;
  }

  _pick(run, box) {
    if (box.checked) this._chosen.set(run.run_id, run);
    else this._chosen.delete(run.run_id);
    this._compare.disabled = this._chosen.size !== 2;
  }

  _openComparison() {
    const [first, second] = [...this._chosen.values()].sort((one, other) => (one.run_id < other.run_id ? -1 : 1));
    go(`compare/${first.thread_id}.${first.run_id}/${second.thread_id}.${second.run_id}`);
  }

  _stop(run) {
    return request(`/threads/${run.thread_id}/runs/${run.run_id}/cancel`, { method: "POST", headers: { "Idempotency-Key": uuid() } });
  }

  /** Run the same request again, on the thread's current state. */
  async _again(run) {
    const { kwargs } = await get(`/threads/${run.thread_id}/runs/${run.run_id}`);
    const { input, config, context, stream_mode } = kwargs;
    await post(`/threads/${run.thread_id}/runs`, { assistant_id: run.assistant_id, input, config, context, stream_mode }, { once: true });
  }

  _stopAll() {
    return this._act(async () => {
      await post("/runs/cancel", { status: "all" }, { once: true }).catch((error) => {
        if (error.status !== 404) throw error;
      });
    });
  }

  _act(act) {
    return this._try(async () => {
      await act();
      await this._refresh();
    });
  }

  async _try(act) {
    try {
      await act();
      this._problem.show(null);
    } catch (error) {
      this._problem.show(error);
    }
  }
}

function failure({ error, message }) {
  const text = [error, message].filter(Boolean).join(": ");
  return h("div.run-error", { title: text }, text);
}

/** Read a filter of metadata: a JSON object, or pairs such as `user=ada, team=red`, whose values are texts. */
function metadataOf(text) {
  if (text.startsWith("{")) {
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Error(`The metadata is not valid JSON: ${error.message}. Write an object, or pairs such as user=ada.`);
    }
  }
  const pairs = text.split(",").map((pair) => pair.split(/=(.*)/s).slice(0, 2).map((part) => part.trim()));
  if (pairs.some(([name, value]) => !name || value === undefined)) throw new Error("Write metadata as pairs such as user=ada, or as a JSON object.");
  return Object.fromEntries(pairs);
}
