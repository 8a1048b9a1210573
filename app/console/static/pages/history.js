/** The time machine of a thread: every checkpoint with what changed, as a waterfall, and a fork from any of them. */

import { get, query } from "../js/api.js";
import { nodeOf, stepsOf, took } from "../js/checkpoints.js";
import { button, duration, empty, fill, fullDate, h, icon, number, pageHead, pretty, problemPlace, status } from "../js/dom.js";
import { diffView, sideBySide } from "../js/diff.js";
import { RunEvents } from "../js/events.js";
import { drawGraph } from "../js/graph.js";
import { tokens } from "../js/messages.js";
import { go, link } from "../js/router.js";
import { isLive, queuedFor, searchRuns } from "../js/runs.js";
import { Session } from "../js/session.js";
import { refreshThreads } from "../js/state.js";

const PAGE = 50;

export class HistoryPage {
  title = "History";

  /** `runId`: the run that is open at first; without, the newest. */
  constructor(threadId, runId = "") {
    this._id = threadId;
    this._opened = runId;
    this._events = [];
    this._states = [];
    this._compared = null;
    this._list = h("ol.timeline", { "aria-label": "Checkpoints, newest first" });
    this._detail = h("section", { "aria-live": "polite" });
    this._graph = h("div");
    this._runs = h("div");
    this._more = button("Older checkpoints", () => this._load(), { kind: "wide" });
    const path = `threads/${threadId}`;
    this.element = h("div.page", null,
      pageHead("History", "Every step is a checkpoint: see what it changed, compare, and go on from any of them.",
        h("a.button", { href: link(path), "data-go": path }, icon("chat", 16), "Conversation")),
      this._runs, h("div.columns", null, h("div", null, this._list, this._more), h("div", null, this._detail, this._graph)));
  }

  async show() {
    this._runsFound = (await searchRuns({ thread_id: this._id, limit: 100 })).runs;
    this._ofRun = new Map(this._runsFound.map((run) => [run.run_id, run]));
    await this._load();
    if (this._states.length) this._choose(this._states[0]);
    else fill(this._detail, empty("No checkpoint yet", "The first run of this thread makes one."));
    this._waterfall();
    const agent = this._runsFound[0]?.assistant_id;
    if (agent) this._drawing = await get(`/assistants/${agent}/graph`).catch(() => null);
    this._drawGraph();
  }

  close() {
    for (const events of this._events) events.close();
  }

  async _load() {
    const last = this._states.at(-1);
    const page = await query(`/threads/${this._id}/history`, { limit: PAGE, ...(last && { before: last.checkpoint }) });
    this._states.push(...page);
    this._more.hidden = page.length < PAGE;
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

  _choose(state) {
    this._chosen = state;
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
      editor, h("div.buttons", null, button("Go on", () => this._continue(state, editor.value, node.value, place), { kind: "primary", glyph: "play" }), node), place);
    return box;
  }

  async _continue(state, text, node, place) {
    place.show(null);
    try {
      const values = JSON.parse(text || "{}");
      let checkpoint_id = state.checkpoint_id;
      if (Object.keys(values).length) {
        const written = await query(`/threads/${this._id}/state`, { values, checkpoint_id, ...(node && { as_node: node }) });
        checkpoint_id = written.checkpoint_id;
      }
      const session = new Session(this._id);
      await session.start({ input: null, checkpoint_id }, { assistant: state.metadata?.assistant_id ?? this._runsFound[0]?.assistant_id });
      refreshThreads();
      go(`threads/${this._id}`);
    } catch (error) {
      place.show(error);
    }
  }

  _drawGraph() {
    if (!this._drawing || !this._chosen) return;
    const lit = new Set([...this._chosen.next, ...(this._chosen.next.length ? [] : ["__end__"])]);
    fill(this._graph, h("article.card", null, h("h2", null, "Next in the graph"), drawGraph(this._drawing, lit)));
  }

  /** Runs with their time in the queue and their steps as bars on one scale of time. */
  _waterfall() {
    this.close();
    const shown = this._runsFound.slice(0, 20);
    const opened = shown.find((run) => run.run_id === this._opened) ?? shown[0];
    this._events = shown.map((run) => new RunEvents(this._id, run.run_id));
    fill(this._runs, shown.map((run, index) => this._run(run, this._events[index], shown[index + 1], run === opened)));
  }

  _run(run, events, earlier, open) {
    const steps = stepsOf(run, this._states);
    const created = Date.parse(run.created_at);
    const end = Math.max(created + 1, steps.at(-1)?.to ?? 0, isLive(run) ? Date.now() : Date.parse(run.ended_at));
    const place = (bar, from, to) => {
      const left = ((from - created) / (end - created)) * 100;
      bar.style.left = `${left}%`;
      bar.style.width = `${Math.min(Math.max(0.6, ((to - from) / (end - created)) * 100), 100 - left)}%`;
      return bar;
    };
    const queued = queuedFor(run);
    const wait = queued > 0 && place(h("div.bar.of-queue", { role: "img", title: `queue: ${duration(queued)}`, "aria-label": `queue: ${duration(queued)}` }, h("span", null, "queue")), created, created + queued);
    const bars = steps.map(({ state, name, from, to }) => {
      const label = `${name}: ${duration(to - from)}`;
      return place(h("button.bar", { type: "button", title: label, "aria-label": label, class: name.includes("tools") ? "of-tools" : "", onclick: () => this._choose(state) }, h("span", null, name)), from, to);
    });
    const times = [`queue ${duration(queued)}`, ...steps.map(({ name, from, to }) => `${name} ${duration(to - from)}`)];
    const compare = earlier && `compare/${this._id}.${earlier.run_id}/${this._id}.${run.run_id}`;
    return h("details.card.run", { open }, h("summary", null, status(run.status), h("b", null, ` ${duration(end - created)} `),
      h("span.faint", null, `${fullDate(run.created_at)}${run.usage ? ` · ${tokens(run.usage)}` : ""} · ${number(steps.length)} steps`),
      run.attempts > 1 && h("span.status.interrupted.attempts", null, `${run.attempts} attempts`)),
    run.error && h("p.problem", null, `${run.error.error}: ${run.error.message}`),
    h("div.waterfall", null, wait, bars), h("p.faint.times", null, times.join(" · ")),
    run.attempts > 1 && h("p", null, icon("redo", 14), ` Workers began this run ${run.attempts} times; its events show where the next one went on.`),
    events.element,
    h("p.faint.mono", null, run.run_id), compare && h("a", { href: link(compare), "data-go": compare }, "Compare with the run before"));
  }
}
