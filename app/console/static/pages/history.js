/** The time machine of a thread: every checkpoint with what changed, as a waterfall, and a fork from any of them. */

import { get, post, query } from "../js/api.js";
import { nodeOf, stepsOf, took } from "../js/checkpoints.js";
import { button, counted, duration, empty, fill, fullDate, h, icon, keep, pageHead, pretty, problemPlace, status } from "../js/dom.js";
import { diffView, sideBySide } from "../js/diff.js";
import { RunEvents } from "../js/events.js";
import { drawGraph } from "../js/graph.js";
import { tokens } from "../js/messages.js";
import { Poll } from "../js/poll.js";
import { go, link } from "../js/router.js";
import { isLive, searchRuns } from "../js/runs.js";
import { Session } from "../js/session.js";
import { refreshThreads } from "../js/state.js";
import { drawWaterfall, rowsOf } from "../js/waterfall.js";

const PAGE = 50;
/** Runs that are shown as a waterfall. */
const MAX_RUNS = 20;
/** How often a live run is read again. */
const LIVE_MS = 1500;

export class HistoryPage {
  title = "History";

  /** `runId`: the run that is open at first; without, the newest. */
  constructor(threadId, runId = "") {
    this._id = threadId;
    this._opened = runId;
    this._cards = new Map();
    this._poll = new Poll(() => this._refresh(), LIVE_MS);
    this._states = [];
    this._compared = null;
    this._list = h("ol.timeline", { "aria-label": "Checkpoints, newest first" });
    this._detail = h("section", { "aria-live": "polite" });
    this._graph = h("div");
    this._runs = h("div");
    this._more = button("Older checkpoints", () => this._load(), { kind: "wide", hidden: true });
    const path = `threads/${threadId}`;
    this.element = h("div.page", null,
      pageHead("History", "Every step is a checkpoint: see what it changed, compare, and go on from any of them.",
        h("a.button", { href: link(path), "data-go": path }, icon("chat", 16), "Conversation")),
      this._runs, h("div.columns", null, h("div", null, this._list, this._more), h("div", null, this._detail, this._graph)));
  }

  async show() {
    await this._poll.start();
    const agent = this._runsFound[0]?.assistant_id ?? this._states[0]?.metadata?.assistant_id; // a copied thread has no run
    if (agent) this._drawing = await get(`/assistants/${agent}/graph`).catch(() => null);
    this._drawGraph();
  }

  close() {
    this._closed = true;
    this._poll.stop();
    for (const card of this._cards.values()) card.events.close();
  }

  /** Read the runs and the newest checkpoints: at first, while a run is live, and once more when it has ended. */
  async _refresh() {
    if (this._runsFound && !this._runsFound.some(isLive)) return;
    this._runsFound = (await searchRuns({ thread_id: this._id, limit: 100 })).runs;
    this._ofRun = new Map(this._runsFound.map((run) => [run.run_id, run]));
    const page = await query(`/threads/${this._id}/history`, { limit: PAGE });
    const newest = this._states[0];
    const oldest = page.at(-1)?.created_at ?? "";
    const older = this._states.filter((state) => state.created_at < oldest);
    if (!older.length) this._more.hidden = page.length < PAGE;
    this._states = [...page, ...older];
    this._listStates();
    // the newest checkpoint is shown as it changes, but not while a person reads or writes in its folded parts
    if (!this._states.length) fill(this._detail, empty("No checkpoint yet", "The first run of this thread makes one."));
    else if (!this._chosen || (this._chosen === newest && !this._detail.querySelector("details[open]"))) this._choose(this._states[0]);
    this._waterfall();
  }

  async _load() {
    this._more.disabled = true;
    try {
      const page = await query(`/threads/${this._id}/history`, { limit: PAGE, before: this._states.at(-1).checkpoint });
      this._states.push(...page);
      this._more.hidden = page.length < PAGE;
      this._listStates();
    } finally {
      this._more.disabled = false;
    }
  }

  _listStates() {
    fill(this._list, this._states.map((state) => this._row(state)));
    this._markChosen();
  }

  _row(state) {
    const meta = state.metadata ?? {};
    const node = nodeOf(state, this._parent(state));
    const run = this._ofRun.get(meta.run_id);
    return h("li", { "data-checkpoint": state.checkpoint_id }, h("button.checkpoint", { type: "button", onclick: () => this._choose(state) },
      h("span.step", null, meta.step ?? "–"), h("span.checkpoint-name", null, h("b", null, node),
        h("span.faint", null, ` ${new Date(state.created_at).toLocaleTimeString()}${took(state, this._parent(state))}`)),
      state.tasks?.some((task) => task.interrupts?.length) ? status("interrupted") : run && !state.next.length && run.status !== "success" && status(run.status)));
  }

  _parent(state) {
    return this._states.find((one) => one.checkpoint_id === state.parent_checkpoint_id);
  }

  _markChosen() {
    for (const row of this._list.children) {
      const here = row.dataset.checkpoint === this._chosen?.checkpoint_id;
      if (here) row.firstChild.setAttribute("aria-current", "true");
      else row.firstChild.removeAttribute("aria-current");
    }
  }

  _choose({ checkpoint_id: id }) {
    const state = (this._chosen = this._states.find((one) => one.checkpoint_id === id));
    this._markChosen();
    const parent = this._parent(state);
    const other = this._states.find((one) => one.checkpoint_id === this._compared && one !== state);
    const name = (one) => `step ${one.metadata?.step ?? "–"}, ${nodeOf(one, this._parent(one))}`;
    const against = h("select", { "aria-label": "Compare with" }, h("option", { value: "" }, "the step before"),
      this._states.filter((one) => one !== state).map((one) => h("option", { value: one.checkpoint_id, selected: one === other },
        `${name(one)}, ${new Date(one.created_at).toLocaleTimeString()}`)));
    against.addEventListener("change", () => {
      this._compared = against.value;
      this._choose(state);
    });
    const questions = (state.tasks ?? []).flatMap((task) => task.interrupts ?? []);
    fill(this._detail, h("article.card", null,
      h("h2", null, `Step ${state.metadata?.step ?? "–"}: ${nodeOf(state, parent)}`),
      h("p.faint", null, `${fullDate(state.created_at)} · next: ${state.next.join(", ") || "nothing"} · ${state.metadata?.source ?? ""}`),
      questions.length > 0 && h("p", null, icon("inbox", 15), ` ${questions.length} open questions`),
      h("div.filters", null, h("label.check", null, "Compare with ", against)),
      other ? sideBySide(other.values, state.values, [name(other), name(state)]) : diffView(parent?.values ?? {}, state.values),
      h("details", null, h("summary", null, "The whole state"), h("pre", { tabindex: "0" }, pretty(state.values))),
      this._fork(state)));
    this._drawGraph();
  }

  /** Continue from a checkpoint, unchanged or with an edited state. */
  _fork(state) {
    const place = problemPlace();
    const editor = h("textarea.code-input", { rows: "10", spellcheck: "false", "aria-label": "Values to write", value: "{}" });
    const node = h("input", { type: "text", "aria-label": "As node", placeholder: "as node (optional)" });
    const box = h("details", null, h("summary", null, "Go on from here"),
      h("p.faint", null, "The thread continues on a new branch; the old one stays in its history. Values are written over the state as the node would write them."),
      editor, h("div.buttons", null, button("Go on", (event) => this._continue(state, editor.value, node.value, place, event.currentTarget), { kind: "primary", glyph: "play" }), node), place);
    return box;
  }

  async _continue(state, text, node, place, pressed) {
    place.show(null);
    pressed.disabled = true;
    try {
      const values = JSON.parse(text || "{}");
      let checkpoint_id = state.checkpoint_id;
      if (Object.keys(values).length) {
        const written = await post(`/threads/${this._id}/state`, { values, checkpoint_id, ...(node && { as_node: node }) }, { once: true });
        checkpoint_id = written.checkpoint_id;
      }
      const session = new Session(this._id);
      await session.start({ input: null, checkpoint_id }, { assistant: state.metadata?.assistant_id ?? this._runsFound[0]?.assistant_id });
      refreshThreads();
      if (!this._closed) go(`threads/${this._id}`);
    } catch (error) {
      place.show(error);
    } finally {
      pressed.disabled = false;
    }
  }

  /** The graph, with the nodes lit that run now, or that would run next after the chosen checkpoint. */
  _drawGraph() {
    if (!this._drawing || !this._chosen) return;
    const now = this._chosen === this._states[0] && this._runsFound.some(isLive);
    const lit = new Set([...this._chosen.next, ...(this._chosen.next.length ? [] : ["__end__"])]);
    fill(this._graph, h("article.card", null, h("h2", null, now ? "Running in the graph" : "Next in the graph"), drawGraph(this._drawing, lit)));
  }

  /** Runs with their time in the queue and their steps as bars on one scale of time. */
  _waterfall() {
    const shown = this._runsFound.slice(0, MAX_RUNS);
    const opened = shown.find((run) => run.run_id === this._opened) ?? shown[0];
    shown.forEach((run, index) => {
      let card = this._cards.get(run.run_id);
      if (!card) this._cards.set(run.run_id, (card = new RunCard(this._id, run.run_id, run === opened, (state) => this._choose(state))));
      card.update(run, stepsOf(run, this._states), shown[index + 1]);
    });
    const cards = shown.map((run) => this._cards.get(run.run_id).element);
    keep(this._runs, cards);
  }
}

/** One run: what it did with its time, and its events. */
class RunCard {
  constructor(threadId, runId, open, choose) {
    this._path = `/threads/${threadId}/runs/${runId}/transitions`;
    this._thread = threadId;
    this._choose = choose;
    this._changes = [];
    this._head = h("summary");
    this._attempts = h("span.status.interrupted.attempts");
    this._body = h("div");
    this._foot = h("div");
    this.events = new RunEvents(threadId, runId);
    this.element = h("details.card.run", { open }, this._head, this._body, this.events.element, this._foot);
    this.element.addEventListener("toggle", () => this._read());
  }

  update(run, steps, earlier) {
    const state = JSON.stringify([run, steps.length, earlier?.run_id, isLive(run) && Date.now()]);
    if (state === this._state) return;
    this._state = state;
    [this._run, this._steps] = [run, steps];
    const created = Date.parse(run.created_at);
    const end = Math.max(created + 1, steps.at(-1)?.to ?? 0, isLive(run) ? Date.now() : Date.parse(run.ended_at));
    const compare = earlier && `compare/${this._thread}.${earlier.run_id}/${this._thread}.${run.run_id}`;
    fill(this._head, status(run.status), h("b", null, ` ${duration(end - created)} `),
      h("span.faint", null, `${fullDate(run.created_at)}${run.usage ? ` · ${tokens(run.usage)}` : ""} · ${counted(steps.length, "step")}`), this._attempts);
    fill(this._foot, h("p.faint.mono", null, run.run_id), compare && h("a", { href: link(compare), "data-go": compare }, "Compare with the run before"));
    this._draw();
    this._read();
  }

  /** Read when the run changed, where that is shown and has changed since. */
  async _read() {
    const { status: now, attempts } = this._run;
    const wanted = `${now} ${attempts}`;
    if (!this.element.open || wanted === this._wanted) return;
    this._wanted = wanted;
    const changes = await get(this._path).catch(() => null);
    if (!changes) this._wanted = ""; // with the next update
    else if (wanted === this._wanted) {
      this._changes = changes;
      this._draw();
    }
  }

  _draw() {
    const { error } = this._run;
    // the server counts again from 1 when a run goes on after a take-over
    const attempts = Math.max(this._run.attempts, this._changes.at(-1)?.attempt ?? 1);
    fill(this._attempts, attempts > 1 && `${attempts} attempts`);
    this._attempts.hidden = attempts < 2;
    const focused = [...this._body.querySelectorAll(".bar")].indexOf(document.activeElement);
    fill(this._body, error && h("p.problem", null, `${error.error}: ${error.message}`),
      drawWaterfall(rowsOf(this._run, this._steps, this._changes), this._choose),
      attempts > 1 && h("p", null, icon("redo", 14), ` Workers began this run ${attempts} times; its events show where the next one went on.`));
    if (focused >= 0) this._body.querySelectorAll(".bar")[focused]?.focus();
  }
}
