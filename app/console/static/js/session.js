/**
 * One thread as this tab sees it: its messages, its live run, its open questions. All come from the thread's state and
 * from one stream that follows all runs of the thread, so that several tabs and clients see the same.
 */

import { ApiError, get, post, query, request, uuid } from "./api.js";
import { follow } from "./sse.js";

/** How long a state waits for its stream. */
const STREAM_MS = 2000;
/** How often a message that grows is drawn at most; where drawing is slow, it takes a quarter of the time at most. */
const FLUSH_MS = 50;
const REST = 3;
const MODES = ["messages-tuple", "updates", "custom"];

export const textOf = (content) =>
  typeof content === "string" ? content
    : (content ?? []).map((block) => (typeof block === "string" ? block : block.type === "text" ? block.text ?? "" : "")).join("");

const ROLES = { user: "human", assistant: "ai", AIMessageChunk: "ai", AIMessage: "ai", HumanMessage: "human" };

export class Session extends EventTarget {
  /** `threadId` empty: the thread is made with the first message. */
  constructor(threadId = "") {
    super();
    this.threadId = threadId;
    this.assistant = ""; // that of the newest run
    this.messages = [];
    this.values = {};
    this.run = null;
    this.questions = [];
    this.failure = null;
    this.custom = [];
    this.metadata = {};
    this._byId = new Map();
    this._known = new Set(); // runs whose messages are here: started in this tab, or adopted
    this._ended = new Set(); // runs whose end event came, perhaps before the response to the request that started them
    this._changed = new Set();
    this._scheduled = false;
    this._next = 0;
    this._abort = new AbortController();
    this._cursor = "";
  }

  /** Follow the thread, then load its state: no event falls between the two. Rejects if it cannot be read. */
  async open() {
    await Promise.race([this._follow(), new Promise((done) => setTimeout(done, STREAM_MS))]);
    await this.reload();
  }

  _follow() {
    if (this._closed) return null;
    this._visibility = () => (document.hidden ? this._pause() : this._listen());
    document.addEventListener("visibilitychange", this._visibility);
    return this._listen();
  }

  close() {
    this._closed = true;
    document.removeEventListener("visibilitychange", this._visibility);
    this._abort.abort();
    this._stream?.abort();
  }

  /** Read the newest state again. What the stream brought since the request was sent stays. */
  async reload() {
    const since = performance.now();
    const [state, thread] = await Promise.all([
      get(`/threads/${this.threadId}/state`, { signal: this._abort.signal }),
      query("/threads/search", { ids: [this.threadId], select: ["status", "metadata", "interrupts", "error"] }),
    ]);
    this._loaded = true;
    this._status = thread[0]?.status;
    this._ofThread(thread[0]);
    if (!this.run) this.failure = thread[0]?.status === "error" ? thread[0].error : null;
    this._show(state, since);
    this._notify("all");
  }

  _ofThread(thread) {
    this.metadata = thread?.metadata ?? {};
    this.assistant = this.metadata.assistant_id ?? this.assistant;
  }

  _show(state, since = Infinity) {
    this.values = state.values ?? {};
    const arrived = this.messages.filter((message) => message.streaming || message.stamp > since);
    this.messages = [];
    this._byId.clear();
    const given = Array.isArray(this.values.messages) ? this.values.messages : [];
    given.forEach((message, index) => this._put({ ...message, id: message.id ?? `message-${index}` }));
    for (const message of since === Infinity ? [] : arrived) if (!this._byId.has(message.id)) this._put(message);
    this._changed.clear(); // all are drawn
    if (this.run && since !== Infinity) return;
    this.questions = (state.tasks ?? []).flatMap((task) => task.interrupts ?? []);
    if (!this.questions.length) this.questions = state.interrupts ?? [];
  }

  /** A hidden tab holds no stream while nothing runs; it catches up when it is shown. */
  _pause() {
    if (!this.run) this._stream?.abort();
  }

  _listen() {
    if (this._closed || (this._stream && !this._stream.signal.aborted)) return null;
    const stream = new AbortController();
    this._stream = stream;
    let opened;
    const open = new Promise((done) => (opened = done));
    const onOpen = () => {
      opened();
      if (this._loaded && !this._cursor) this._catchUp().catch(() => {});
    };
    const following = { onEvents: (events) => this._take(events), signal: stream.signal, after: this._cursor, onOpen };
    follow(`/threads/${this.threadId}/stream`, following).catch((error) => {
      opened();
      stream.abort();
      if (error instanceof ApiError && [400, 410, 422].includes(error.status)) {
        this._cursor = "";  // the events are gone: the state has what they said
        this.reload().then(() => this._listen(), () => {});
      } else this._notify("gone", error);
    });
    return open;
  }

  /** A stream that opened late, and not after a known event, misses what was before: also the end of a run. */
  async _catchUp() {
    const { run } = this;
    await this.reload();
    if (run && run === this.run && this._status !== "busy") this._onEnd(run.run_id);
  }

  _take(events) {
    for (const { event, data, id } of events) {
      this._cursor = id;
      try {
        this._event(event.split("|")[0], JSON.parse(data), event.includes("|"));
      } catch (error) {
        console.warn("An event could not be shown", event, error);
      }
    }
  }

  _event(event, data, nested) {
    if (event === "metadata") {
      if (data.status === "run_done") this._onEnd(data.run_id);
      else this._onStart(data.run_id);
    } else if (event === "messages" && Array.isArray(data)) this._onChunk(data[0], data[1], nested);
    else if (event === "updates") this._onUpdates(data, nested);
    else if (event === "values" && !nested) this._onValues(data);
    else if (event === "custom") {
      this.custom.push({ at: Date.now(), data });
      this._notify("custom");
    } else if (event === "retracted") for (const id of data.message_ids ?? []) this._drop(id);
    else if (event === "error") {
      this.failure = data;
      this._notify("run");
    } else if (event === "end") this._onEnd(data.run_id);
  }

  _onStart(runId) {
    this.run = { run_id: runId, status: "running", since: Date.now() };
    this.failure = null;
    this.custom = [];
    this.questions = [];
    this._sawUpdates = false;
    this._notify("run");
    if (!this._known.has(runId)) this._adopt(runId);
  }

  /** Show what a run that another client started was given; its messages get their ids from the state at its end. */
  async _adopt(runId) {
    this._known.add(runId);
    this._reloadAtEnd = true;
    const run = await get(`/threads/${this.threadId}/runs/${runId}`).catch(() => null);
    if (!run) return;
    this.assistant = run.assistant_id;
    if (run.kwargs?.checkpoint_id) return this.reload().catch(() => {});
    const input = run.kwargs?.input;
    const given = typeof input === "string" ? [{ type: "human", content: input }] : input?.messages ?? input;
    for (const message of Array.isArray(given) ? given : given?.content ? [given] : []) {
      const role = ROLES[message.role ?? message.type] ?? message.type;
      if (typeof message === "object" && !this.messages.some((one) => one.type === role && textOf(one.content) === textOf(message.content)
        && this.messages.indexOf(one) >= this.messages.length - 3)) {
        this._add({ ...message, type: role ?? "human", id: message.id ?? `given-${uuid()}` }, this._liveIndex());
      }
    }
    this._notify("all");
  }

  _liveIndex() {
    const at = this.messages.findIndex((message) => message.streaming);
    return at < 0 ? this.messages.length : at;
  }

  _onChunk(chunk, where, nested) {
    if (!chunk?.id || nested) return;
    const type = ROLES[chunk.type] ?? chunk.type;
    let message = this._byId.get(chunk.id);
    if (!message) {
      message = { type, id: chunk.id, content: "", tool_calls: [], streaming: true, node: where?.langgraph_node };
      if (type !== "ai") Object.assign(message, chunk, { type });
      message.stamp = performance.now();
      this._put(message);
      if (type !== "ai") return;
    }
    if (type !== "ai" || message.settled) return;
    message.content = textOf(message.content) + textOf(chunk.content);
    if (chunk.additional_kwargs?.reasoning_content) {
      message.reasoning = (message.reasoning ?? "") + chunk.additional_kwargs.reasoning_content;
    }
    for (const piece of chunk.tool_call_chunks ?? []) this._callChunk(message, piece);
    this._touch(message.id);
  }

  _callChunk(message, piece) {
    let call = message.tool_calls.find((one) => one.index === piece.index);
    if (!call) message.tool_calls.push((call = { index: piece.index, id: piece.id, name: "", text: "", args: null, since: Date.now() }));
    if (piece.id) call.id = piece.id;
    if (piece.name) call.name = piece.name;
    call.text += piece.args ?? "";
  }

  _onUpdates(data, nested) {
    if (nested) return;
    this._sawUpdates = true;
    for (const [node, update] of Object.entries(data)) {
      if (node === "__interrupt__") {
        this.questions = update;
        this._notify("questions");
        continue;
      }
      const given = update?.messages;
      for (const message of Array.isArray(given) ? given : given ? [given] : []) {
        if (message?.type === "remove") this._drop(message.id);
        else if (typeof message === "object") this._add({ ...message, node, settled: true });
      }
      for (const [name, value] of Object.entries(update ?? {})) if (name !== "messages") this.values[name] = value;
    }
  }

  _onValues(values) {
    this._sawUpdates = true;
    const { __interrupt__: questions, ...rest } = values ?? {};
    this._show({ values: rest, interrupts: questions ?? [] });
    this._notify("all");
  }

  _onEnd(runId) {
    this.run = null;
    this._ended.add(runId);
    if (document.hidden) this._pause();
    for (const message of this.messages) if (message.streaming) delete message.streaming;
    this._notify("end");
    if (!this._sawUpdates || this._reloadAtEnd) {
      this._reloadAtEnd = false;
      this.reload().catch(() => {});
    } else this._settleThread();
  }

  /** Read what a run leaves on the thread besides its messages. */
  async _settleThread() {
    const [thread] = await query("/threads/search", { ids: [this.threadId], select: ["status", "metadata", "interrupts", "error"] });
    if (!thread || this.run) return;
    this._ofThread(thread);
    this.failure = thread.status === "error" ? thread.error : null;
    const open = Object.values(thread.interrupts ?? {}).flat();
    if (open.length || this.questions.length) this.questions = open;
    this._notify("run");
  }

  /** Insert or replace a message that is newer than any state that was asked for before. */
  _add(message, at) {
    this._put({ ...message, stamp: performance.now() }, at);
  }

  /** Insert or replace a message; order is that of arrival. */
  _put(message, at = this.messages.length) {
    const known = this._byId.get(message.id);
    if (known) {
      this.messages[this.messages.indexOf(known)] = message;
      message.reasoning ??= known.reasoning;
    } else this.messages.splice(at, 0, message);
    if (message.id) this._byId.set(message.id, message);
    if (message.type === "tool") {
      const asked = this.messages.findLast((one) => one.tool_calls?.some((call) => call.id === message.tool_call_id));
      if (asked) this._touch(asked.id);
    }
    this._touch(message.id);
  }

  _drop(id) {
    const message = this._byId.get(id);
    if (!message) return;
    this._byId.delete(id);
    this.messages.splice(this.messages.indexOf(message), 1);
    this._notify("all");
  }

  /** Report changed messages in a frame, and not in each: a fast answer would parse its text sixty times a second. */
  _touch(id) {
    this._changed.add(id);
    if (this._scheduled) return;
    this._scheduled = true;
    const flush = () => {
      this._scheduled = false;
      const began = performance.now();
      const ids = this._changed;
      this._changed = new Set();
      this._notify("messages", ids);
      const ended = performance.now();
      this._next = ended + Math.max(FLUSH_MS, REST * (ended - began));
    };
    const wait = this._next - performance.now();
    if (document.hidden) setTimeout(flush, 250);
    else if (wait <= 0) requestAnimationFrame(flush);
    else setTimeout(() => requestAnimationFrame(flush), wait);
  }

  _notify(type, detail) {
    if (this._closed) return;
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** The results of the tool calls of a message, by call id. */
  resultOf(callId) {
    return this.messages.findLast((one) => one.type === "tool" && one.tool_call_id === callId);
  }

  /** Start a run. `body` is that of the API; `shown` is the message that it adds. */
  async start(body, { shown, assistant } = {}) {
    if (!this.threadId) {
      const thread = await post("/threads", {}, { once: true });
      this.threadId = thread.thread_id;
      this._fresh = true;
    }
    this.assistant = assistant ?? this.assistant;
    const run = await post(`/threads/${this.threadId}/runs`, {
      assistant_id: assistant,
      stream_mode: MODES,
      multitask_strategy: "enqueue",
      ...body,
    }, { once: true });
    this._known.add(run.run_id);
    if (shown) this._add(shown);
    if (!this.run && !this._ended.has(run.run_id)) this.run = { run_id: run.run_id, status: "running", since: Date.now() };
    this._notify("run");
    if (this._fresh) {
      this._fresh = false;
      this._cursor = "-1";
      this._follow();
    }
    return run;
  }

  /** Send what a person says; returns when the run is accepted. */
  send(content, assistant, extra = {}) {
    const message = { type: "human", id: uuid(), content };
    return this.start({ input: { messages: [message] }, ...extra }, { shown: message, assistant });
  }

  /** Answer questions: an object of ids and answers. */
  async answer(answers, assistant) {
    const run = await this.start({ command: { resume: answers } }, { assistant });
    this.questions = this.questions.filter((question) => !(question.id in answers));
    this._notify("questions");
    return run;
  }

  stop() {
    const runId = this.run?.run_id;
    if (!runId) return null;
    this._reloadAtEnd = true;
    return request(`/threads/${this.threadId}/runs/${runId}/cancel`, { method: "POST", headers: { "Idempotency-Key": uuid() } });
  }

  /** Yield the states of this thread, newest first; the history is read as far as it is asked for. */
  async *_states() {
    let before = null;
    for (let pages = 0; pages < 50; pages++) {
      const states = await query(`/threads/${this.threadId}/history`, { limit: 20, ...(before && { before }) });
      if (!states.length) return;
      yield* states;
      before = states.at(-1).checkpoint;
    }
  }

  /**
   * Return the checkpoint whose messages are the first `count` ones of this thread, the newest such; null if the
   * history does not reach so far back.
   */
  async checkpointWith(count) {
    for await (const state of this._states()) {
      const messages = state.values?.messages ?? [];
      const last = this.messages[count - 1];
      if (messages.length === count && (!count || messages[count - 1].id === last.id)) return state;
    }
    return null;
  }

  /** Return the id of the run that made a message; null if the history does not reach so far back. */
  async runOf(message) {
    let made = null;
    for await (const state of this._states()) {
      if (state.values?.messages?.some((one) => one.id === message.id)) made = state;
      else if (made) break;
    }
    return made?.metadata?.run_id ?? null;
  }

  /** Return the milliseconds of the step that added a message; null if the history does not reach so far back. */
  async stepTime(messageId) {
    let made = null;
    for await (const state of this._states()) {
      if (state.values?.messages?.some((one) => one.id === messageId)) made = state;
      else return made && Date.parse(made.created_at) - Date.parse(state.created_at);
    }
    return null;
  }

  /** Go on from the checkpoint that has the first `count` messages: with another text, or, without one, unchanged. */
  async branch(count, content, assistant) {
    const state = await this.checkpointWith(count);
    if (!state) throw new ApiError(0, { detail: "The history does not reach back to this message any more." });
    const checkpoint_id = state.checkpoint.checkpoint_id;
    const cut = this.messages.splice(count);
    for (const message of cut) this._byId.delete(message.id);
    this.questions = [];
    this._notify("all");
    try {
      if (content === null) return await this.start({ input: null, checkpoint_id }, { assistant });
      return await this.send(content, assistant, { checkpoint_id });
    } catch (error) {
      await this.reload();
      throw error;
    }
  }
}
