/** The time machine of a thread: every checkpoint with what changed, as a waterfall, and a fork from any of them. */

import { get, query } from "../js/api.js";
import { button, duration, empty, fill, fullDate, h, icon, number, pageHead, pretty, problemPlace, status } from "../js/dom.js";
import { diffView } from "../js/diff.js";
import { drawGraph } from "../js/graph.js";
import { tokens } from "../js/messages.js";
import { go, link } from "../js/router.js";
import { Session } from "../js/session.js";
import { refreshThreads } from "../js/state.js";

const PAGE = 50;

export class HistoryPage {
  title = "History";

  constructor(threadId) {
    this._id = threadId;
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
    this._runsFound = await get(`/threads/${this._id}/runs?limit=100`);
    this._ofRun = new Map(this._runsFound.map((run) => [run.run_id, run]));
    await this._load();
    if (this._states.length) this._choose(this._states[0]);
    else fill(this._detail, empty("No checkpoint yet", "The first run of this thread makes one."));
    this._waterfall();
    const agent = this._runsFound[0]?.assistant_id;
    if (agent) this._drawing = await get(`/assistants/${agent}/graph`).catch(() => null);
    this._drawGraph();
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
    const other = this._compared && this._states.find((one) => one.checkpoint_id === this._compared);
    const against = h("select", { "aria-label": "Compare with" }, h("option", { value: "" }, "the step before"),
      this._states.filter((one) => one !== state).map((one) => h("option", { value: one.checkpoint_id, selected: one === other },
        `step ${one.metadata?.step ?? "–"}, ${nodeOf(one, this._parent(one))}, ${new Date(one.created_at).toLocaleTimeString()}`)));
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
      diffView((other ?? parent)?.values ?? {}, state.values),
      h("details", null, h("summary", null, "The whole state"), h("pre", { tabindex: "0" }, pretty(state.values))),
      this._fork(state)));
    this._drawGraph();
  }

  /** Go on from a checkpoint: as it is, or with an edited state. */
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

  /** Runs with their steps as bars on one scale of time. */
  _waterfall() {
    const byRun = new Map();
    for (const state of this._states) if (state.metadata?.run_id) (byRun.get(state.metadata.run_id) ?? byRun.set(state.metadata.run_id, []).get(state.metadata.run_id)).unshift(state);
    fill(this._runs, this._runsFound.slice(0, 20).map((run) => {
      const begun = Date.parse(run.created_at);
      const steps = (byRun.get(run.run_id) ?? []).map((state) => ({ state, at: Date.parse(state.created_at) })).filter((one) => one.at >= begun);
      const end = Math.max(begun + 1, steps.at(-1)?.at ?? 0, ["running", "pending"].includes(run.status) ? Date.now() : Date.parse(run.updated_at));
      const whole = end - begun;
      let before = begun;
      const bars = steps.map(({ state, at }) => {
        const [from, width] = [((before - begun) / whole) * 100, Math.max(0.6, ((at - before) / whole) * 100)];
        const name = nodeOf(state, this._parent(state));
        const label = `${name}: ${duration(at - before)}`;
        before = at;
        const bar = h("button.bar", { type: "button", title: label, "aria-label": label, class: name.includes("tools") ? "of-tools" : "", onclick: () => this._choose(state) }, h("span", null, name));
        bar.style.left = `${from}%`;
        bar.style.width = `${Math.min(width, 100 - from)}%`;
        return bar;
      });
      const usage = usageOf(steps.map(({ state }) => state));
      return h("details.card.run", { open: run === this._runsFound[0] }, h("summary", null, status(run.status), h("b", null, ` ${duration(whole)} `),
        h("span.faint", null, `${fullDate(run.created_at)}${usage ? ` · ${tokens(usage)}` : ""} · ${number(steps.length)} steps`)),
      h("div.waterfall", null, bars), h("p.faint.mono", null, run.run_id));
    }));
  }
}

/** The node that made a state: what was next at the one before. */
function nodeOf(state, parent) {
  if (state.metadata?.source === "input") return "input";
  if (state.metadata?.source === "update") return "edited";
  if (parent?.next?.length) return parent.next.join(", ");
  return state.metadata?.source === "fork" ? "fork" : state.next?.[0] === "__start__" ? "start" : "step";
}

function took(state, parent) {
  const ms = parent ? Date.parse(state.created_at) - Date.parse(parent.created_at) : NaN;
  return Number.isFinite(ms) && ms >= 0 && state.metadata?.source === "loop" ? ` · ${duration(ms)}` : "";
}

function usageOf(states) {
  const first = new Set((states[0]?.values?.messages ?? []).map((message) => message.id));
  const sum = { input_tokens: 0, output_tokens: 0 };
  for (const message of states.at(-1)?.values?.messages ?? []) {
    if (first.has(message.id) || !message.usage_metadata) continue;
    sum.input_tokens += message.usage_metadata.input_tokens;
    sum.output_tokens += message.usage_metadata.output_tokens;
  }
  return sum.output_tokens ? sum : null;
}
