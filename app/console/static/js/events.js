/**
 * The events of one run, from its log and then from its stream: one line each, which opens to the whole event. Those of a
 * run that is older than the log are told from its checkpoints.
 */

import { ApiError, query } from "./api.js";
import { nodeOf } from "./checkpoints.js";
import { fill, h, icon, number, pretty, problemPlace } from "./dom.js";
import { textOf } from "./session.js";
import { follow } from "./sse.js";

/** More lines than this are not shown. */
const MOST = 2000;
/** Chunks of one message whose data a line shows. */
const MAX_CHUNKS = 200;
/** Checkpoints that tell the events of an old run. */
const MAX_STEPS = 100;

/** A list that opens on demand; it holds a stream only while it is open and the run is live. */
export class RunEvents {
  constructor(threadId, runId) {
    [this._thread, this._run] = [threadId, runId];
    this._problem = problemPlace();
    this._count = h("span.faint");
    this._list = h("ol.events", { "aria-label": "Events" });
    this.element = h("details.run-events", null, h("summary", null, icon("runs", 15), "Events ", this._count), this._problem, this._list);
    this.element.addEventListener("toggle", () => (this.element.open ? this._load() : this.close()));
  }

  open() {
    this.element.open = true;
  }

  close() {
    this._abort?.abort();
  }

  async _load() {
    this.close();
    const abort = (this._abort = new AbortController());
    this._lines = 0;
    this._chunks = null;
    this._epoch = "";
    fill(this._list);
    this._problem.show(null);
    const onEvents = (events) => {
      for (const event of events) {
        if (abort.signal.aborted) break;
        this._add(event);
        if (event.event === "end") abort.abort();
        else if (this._lines >= MOST) {
          this._list.append(h("li.faint", null, `The first ${number(MOST)} lines are shown.`));
          abort.abort();
        }
      }
      this._count.textContent = number(this._lines);
    };
    const path = `/threads/${this._thread}/runs/${this._run}/stream`;
    await follow(path, { onEvents, signal: abort.signal })
      .catch((error) => (error instanceof ApiError && error.status === 410 ? this._tell(abort.signal) : Promise.reject(error)))
      .catch((error) => abort.signal.aborted || this._problem.show(error));
  }

  /** Show what each checkpoint of the run changed. */
  async _tell(signal) {
    const states = await query(`/threads/${this._thread}/history`, { limit: MAX_STEPS, metadata: { run_id: this._run } }, { signal });
    this._list.append(h("li.faint", null, "The log of this run has expired: its checkpoints tell what it did."));
    for (const state of states.reverse()) {
      const parent = states.find((one) => one.checkpoint_id === state.parent_checkpoint_id);
      const line = new Line(nodeOf(state, parent), changed(parent?.values ?? {}, state.values ?? {}), `step ${state.metadata?.step ?? "–"}`);
      line.show();
      this._list.append(line.element);
    }
    this._count.textContent = number(states.length);
  }

  _add({ event, data, id }) {
    const value = parsed(data);
    this._handOver(id);
    const chunk = event.startsWith("messages") && Array.isArray(value) ? value[0] : null;
    if (chunk?.id && this._chunks?.id === chunk.id && this._chunks.event === event) return this._chunks.add(value, textOf(chunk.content), id);
    const line = new Line(event, value, id);
    this._chunks = chunk?.id ? Object.assign(line, { id: chunk.id, event, text: textOf(chunk.content) }) : null;
    line.show();
    this._lines += 1;
    this._list.append(line.element);
  }

  /** The first part of an event's id counts the workers that owned the run. */
  _handOver(id) {
    const epoch = id.split("-")[0];
    if (this._epoch && epoch !== this._epoch) {
      this._list.append(h("li.hand-over", null, icon("redo", 14), ` Another worker goes on: attempt ${epoch}`));
      this._chunks = null;
    }
    this._epoch = epoch;
  }
}

class Line {
  constructor(event, value, id) {
    this._values = [value];
    this._count = 1;
    this._brief = h("span.brief");
    this._name = h("b", null, event);
    this._last = this._first = id;
    this._number = h("span.event-id");
    const body = h("div");
    const box = h("details", null, h("summary", null, this._number, this._name, this._brief), body);
    box.addEventListener("toggle", () => box.open && fill(body, h("pre", { tabindex: "0" }, pretty(this._count === 1 ? value : this._values))));
    this.element = h("li", null, box);
  }

  /** Take one more chunk of the same message. */
  add(value, text, id) {
    this._count += 1;
    if (this._values.length < MAX_CHUNKS) this._values.push(value);
    if (this.text.length < 400) this.text += text;
    this._last = id;
    this.show();
  }

  show() {
    this._number.textContent = this._first === this._last ? this._first : `${this._first} … ${this._last}`;
    this._brief.textContent = this.text === undefined ? JSON.stringify(this._values[0]).slice(0, 300)
      : `${this._count > 1 ? `${number(this._count)} chunks ` : ""}${this.text || calls(this._values)}`;
  }
}

const calls = (values) => values.flatMap(([chunk]) => chunk.tool_call_chunks ?? chunk.tool_calls ?? []).map((call) => `${call.name ?? ""}${typeof call.args === "string" ? call.args : JSON.stringify(call.args ?? "")}`).join("").slice(0, 300);

/** The values that differ from those before; of messages, those that were added. */
function changed(before, after) {
  return Object.fromEntries(Object.entries(after).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(before[name])).map(([name, value]) =>
    [name, name === "messages" && Array.isArray(value) ? value.slice(Array.isArray(before[name]) ? before[name].length : -1) : value]));
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    return data;
  }
}
