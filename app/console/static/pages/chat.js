/** A conversation: messages as they stream, open questions, and the input. */

import { agents, chosenAgent, chooseAgent, refreshThreads } from "../js/state.js";
import { call, get, post } from "../js/api.js";
import { Composer } from "../js/composer.js";
import { button, duration, fill, h, icon, iconButton, problemPlace } from "../js/dom.js";
import { RunEvents } from "../js/events.js";
import { RowList } from "../js/list.js";
import { warmUp } from "../js/markdown.js";
import { messageView } from "../js/messages.js";
import { details, showQuestions } from "../js/questions.js";
import { go, link } from "../js/router.js";
import { Session, textOf } from "../js/session.js";
import { schemaForm } from "../js/forms.js";
import { sureButton } from "../js/table.js";

const STARTERS = ["What can you do?", "What is 12*(3+4)?", "What time is it?"];

export class ChatPage {
  constructor(threadId) {
    this.session = new Session(threadId);
    this._named = Boolean(threadId); // whether the address is that of the thread
    this._shownEvents = new Set();
    this._questions = h("div.questions");
    this._live = h("div.live", { hidden: true }, h("span.pulse"), h("span", null, "Working…"));
    this._failure = h("div.failure", { role: "alert", hidden: true });
    this._welcome = h("div.welcome");
    this._scroller = h("div.scroller", { tabindex: "0", role: "log", "aria-label": "Conversation", "aria-live": "off" });
    this._announce = h("p.visually-hidden", { role: "status" });
    this._list = new RowList(this._scroller, (message) => messageView(message, this.session, this));
    this._toEnd = iconButton("down", "Go to the newest message", () => this._list.toEnd(), { class: "to-end", hidden: true });
    this._scroller.append(h("div.column", null, this._welcome, this._list.element, this._questions, this._failure, this._live));
    this._scroller.addEventListener("scroll", () => (this._toEnd.hidden = this._list.atEnd), { passive: true });
    this.composer = new Composer({
      draftKey: threadId || "new",
      send: (content) => this._send(content),
      stop: () => this.session.stop()?.catch((error) => this.composer.show(error)),
    });
    this._bar = h("div.chat-bar");
    this.element = h("div.chat", null, this._bar, this._scroller, this._announce,
      h("div.column.foot", null, this._toEnd, this.composer.element));
    this.element.addEventListener("drop", (event) => event.dataTransfer.files.length && this.composer.attach(event.dataTransfer.files));
    for (const [type, listener] of Object.entries({
      all: () => this._all(), messages: (event) => this._messages(event.detail), run: () => this._run(), end: () => this._ended(),
      questions: () => this._ask(), gone: (event) => this._gone(event.detail),
    })) this.session.addEventListener(type, listener);
    if (!threadId) return;
    this._opening = this.session.open();
    this._opening.catch(() => {}); // show() reports it
  }

  async show() {
    this._showBar();
    warmUp();
    if (!this.session.threadId) {
      this._greet();
      this.composer.focus();
      return;
    }
    await this._opening;
    if (this._closed) return;
    this._showBar();
    this.composer.focus();
  }

  close() {
    this._closed = true;
    clearInterval(this._clock);
    for (const events of this._shownEvents) events.close();
    this.session.close();
    this._list.close();
  }

  async _send(content) {
    this._list.toEnd();
    await this.session.send(content, this._picked());
    this._welcome.replaceChildren();
    this._opened();
  }

  /** Give the page the address of its thread when the first run was accepted, unless it was left by then. */
  _opened() {
    if (this._named) return;
    this._named = true;
    refreshThreads();
    if (this._closed) return;
    this.composer.draftKey = this.session.threadId;
    history.replaceState(null, "", link(`threads/${this.session.threadId}`));
    dispatchEvent(new CustomEvent("console:thread", { detail: this.session.threadId }));
    this._showBar();
  }

  _picked() {
    return this._select?.value || chosenAgent();
  }

  _showBar() {
    const { threadId } = this.session;
    const chosen = this.session.metadata.assistant_id ?? chosenAgent();
    this._select = h("select.agent-select", { "aria-label": "Agent" }, agents().map((one) =>
      h("option", { value: one.assistant_id, selected: one.assistant_id === chosen }, one.name || one.graph_id)));
    this._select.addEventListener("change", () => {
      chooseAgent(this._select.value);
      if (!threadId) this._greet();
    });
    fill(this._bar, threadId && h("h1.visually-hidden", null, "Conversation"), this._select, h("div.spacer"),
      threadId && h("a.button", { href: link(`threads/${threadId}/history`), "data-go": `threads/${threadId}/history` }, icon("history", 16), h("span.label-text", null, "History")),
      h("a.button", { href: link(`call/${this._select.value}`), "data-go": `call/${this._select.value}` }, icon("code", 16), h("span.label-text", null, "Call it")),
      threadId && sureButton("Delete", () => this._delete(), { kind: "danger" }));
  }

  async _delete() {
    try {
      await call("DELETE", `/threads/${this.session.threadId}`);
      refreshThreads();
      if (!this._closed) go("");
    } catch (error) {
      this.composer.show(error);
    }
  }

  async _greet() {
    const chosen = agents().find((one) => one.assistant_id === this._picked());
    if (!chosen) return;
    fill(this._welcome, h("div.welcome-mark", null, icon("chat", 28)), h("h1", null, `Talk to ${chosen.name}`),
      h("p.faint", null, chosen.description ?? ""), this._form = h("div"),
      h("div.starters", null, STARTERS.map((text) => button(text, () => this.composer.write(text)))));
    const schemas = await get(`/assistants/${chosen.assistant_id}/schemas`).catch(() => null);
    const input = schemas?.input_schema;
    if (!this._form.isConnected || chosen.assistant_id !== this._picked() || !input?.properties || input.properties.messages) return;
    // this agent does not take messages: show what it takes
    this._welcome.querySelector(".starters").remove();
    fill(this._form, h("p.faint", null, "This agent takes its own input:"), schemaForm(input, (value) => this._start(value), "Start"));
  }

  async _start(input) {
    try {
      await this.session.start({ input }, { assistant: this._picked() });
      this._welcome.replaceChildren();
      this._opened();
    } catch (error) {
      this.composer.show(error);
    }
  }

  _rows() {
    const { messages } = this.session;
    const called = new Set();
    for (const message of messages) for (const call of message.tool_calls ?? []) called.add(call.id);
    return messages.filter((message) => message.type !== "tool" || !called.has(message.tool_call_id));
  }

  _all() {
    this._list.set(this._rows());
    this._values();
    this._run();
    this._ask();
  }

  _messages(ids) {
    this._list.sync(this._rows(), ids);
  }

  _run() {
    const { run, failure } = this.session;
    this._live.hidden = !run;
    this.composer.running = Boolean(run?.run_id);
    clearInterval(this._clock);
    if (run) {
      const tick = () => (this._live.lastChild.textContent = `${this._progress()} ${duration(Date.now() - run.since)}`);
      this._clock = setInterval(tick, 250);
      tick();
    }
    this._failure.hidden = !failure;
    if (failure) {
      fill(this._failure, icon("warn"), h("div", null, h("b", null, failure.error ?? "Error"), h("p", null, failure.message ?? String(failure)),
        button("Try again", () => this._again(), { glyph: "redo" })));
    }
    this._ask();
    if (this._list.atEnd) this._list.toEnd();
  }

  /** What the agent last said of its progress (a custom event), else that it works. */
  _progress() {
    const said = this.session.custom.at(-1)?.data;
    if (said === undefined) return "Working…";
    const text = typeof said === "string" ? said : said?.message ?? said?.status ?? JSON.stringify(said);
    return `${String(text).slice(0, 120)} ·`;
  }

  _again() {
    this.session.failure = null;
    this.session.start({ input: null }, { assistant: this._picked() }).catch((error) => this.composer.show(error));
    this._run();
  }

  _ended() {
    this._run();
    this._values();
    const last = this.session.messages.at(-1);
    if (last) {
      this._messages(new Set(this.session.messages.slice(-12).map((message) => message.id)));
      this._announce.textContent = last.type === "ai" ? `Answer: ${textOf(last.content).slice(0, 500)}` : "The run has ended.";
    }
    refreshThreads();
  }

  /** Values other than messages are part of what an agent shows. */
  _values() {
    const rest = Object.entries(this.session.values).filter(([name]) => name !== "messages");
    this._state?.remove();
    if (!rest.length || this.session.messages.length) return;
    this._state = h("div.row.other", null, h("b", null, "State"), details(Object.fromEntries(rest)));
    this._list.element.after(this._state);
  }

  _ask() {
    showQuestions(this._questions, this.session.run ? [] : this.session.questions, async (question, value) => {
      await this.session.answer({ [question.id]: value }, this._picked());
      refreshThreads();
    });
    if (this._list.atEnd) this._list.toEnd();
  }

  _gone(error) {
    fill(this._failure, icon("warn"), h("p", null, error.detail ?? error.message));
    this._failure.hidden = false;
  }

  // the actions of messages

  edit(message, row) {
    const text = h("textarea", { rows: "3", "aria-label": "Edited message", dir: "auto", value: textOf(message.content) });
    const place = problemPlace();
    const done = () => form.replaceWith(row);
    const form = h("form.edit", null, text, place, h("div.buttons", null,
      h("button.button.primary", { type: "submit" }, "Send"), button("Cancel", done)));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        await this.session.branch(this.session.messages.indexOf(message), text.value, this._picked());
      } catch (error) {
        if (form.isConnected) place.show(error);
        else this.composer.show(error);
      }
    });
    form.addEventListener("keydown", (event) => event.key === "Escape" && done());
    row.replaceWith(form);
    text.focus();
  }

  async redo(message) {
    const at = this.session.messages.indexOf(message);
    const asked = this.session.messages.findLastIndex((one, index) => index < at && one.type === "human");
    if (asked < 0) return;
    await this.session.branch(asked + 1, null, this._picked()).catch((error) => this.composer.show(error));
  }

  async fork(message) {
    try {
      const count = this.session.messages.indexOf(message) + 1;
      const thread = await post(`/threads/${this.session.threadId}/copy`, undefined, { once: true });
      if (count < this.session.messages.length) {
        const copied = new Session(thread.thread_id);
        await copied.reload();
        const state = await copied.checkpointWith(count);
        copied.close();
        if (state) await post(`/threads/${thread.thread_id}/state`, { values: null, checkpoint_id: state.checkpoint.checkpoint_id }, { once: true });
      }
      refreshThreads();
      if (!this._closed) go(`threads/${thread.thread_id}`);
    } catch (error) {
      this.composer.show(error);
    }
  }

  /** Show or hide, under a message, the events of the run that made it. */
  async events(message, row) {
    const shown = row.querySelector(".run-events");
    if (shown) return shown.remove();
    if (this.session.run) return this.composer.show({ detail: "The run is live: its events can be opened when it has ended." });
    try {
      const runId = await this.session.runOf(message);
      if (!runId) return this.composer.show({ detail: "No run of this thread's history made this message." });
      const events = new RunEvents(this.session.threadId, runId);
      this._shownEvents.add(events);
      row.append(events.element);
      events.open();
    } catch (error) {
      this.composer.show(error);
    }
  }
}
