/** All open questions of all threads: answered here, or in their conversation. */

import { call, query } from "../js/api.js";
import { add, ago, empty, fill, h, icon, keep, pageHead } from "../js/dom.js";
import { questionCard } from "../js/questions.js";
import { link } from "../js/router.js";
import { agentName, changes, refreshThreads, THREAD_FIELDS, titleOf } from "../js/state.js";

/** Threads that are shown. */
const SHOWN = 50;

export const page = () => new InboxPage();

class InboxPage {
  title = "Inbox";

  constructor() {
    this._place = h("div");
    this._rest = h("p.faint");
    this._cards = new Map();
    this.element = h("div.page", null, pageHead("Inbox", "Threads that wait for a person: approvals, reviews and questions."), this._place, this._rest);
    this._onThreads = () => this._load().catch(() => {});
  }

  show() {
    changes.addEventListener("threads", this._onThreads);
    return this._load();
  }

  close() {
    changes.removeEventListener("threads", this._onThreads);
  }

  async _load() {
    const turn = (this._turn = Symbol("threads"));
    const threads = await query("/threads/search", { status: "interrupted", limit: SHOWN, sort_by: "updated_at", sort_order: "desc", ...THREAD_FIELDS });
    if (turn !== this._turn) return;
    const shown = new Map();
    for (const thread of threads) {
      const questions = Object.values(thread.interrupts ?? {}).flat();
      const key = `${thread.thread_id} ${questions.map((one) => one.id).join(" ")}`;
      shown.set(key, this._cards.get(key) ?? this._card(thread, questions));
    }
    this._cards = shown;
    const cards = [...shown.values()];
    keep(this._place, cards);
    this._rest.textContent = threads.length < SHOWN ? "" : `The newest ${SHOWN} threads are shown; older ones move up as these are answered.`;
    if (!cards.length) fill(this._place, empty("Nothing waits", "When an agent asks for an approval or an answer, it shows up here."));
  }

  _card(thread, questions) {
    const path = `threads/${thread.thread_id}`;
    const card = h("article.inbox-item", null, h("header", null,
      h("a", { href: link(path), "data-go": path, dir: "auto" }, titleOf(thread)),
      h("span.faint", null, agentName(thread.metadata?.assistant_id), " · ", ago(thread.updated_at))));
    for (const question of questions) add(card, questionCard(question, (value) => this._answer(thread, question, value)));
    if (!questions.length) add(card, this._paused(thread));
    return card;
  }

  /** A thread that was cancelled, or paused at a node, asks nothing: it can go on. */
  _paused(thread) {
    return h("p.faint", null, icon("clock", 15), " Paused without a question: open it to go on.");
  }

  async _answer(thread, question, value) {
    await call("POST", `/threads/${thread.thread_id}/runs`, {
      assistant_id: thread.metadata?.assistant_id ?? thread.metadata?.graph_id,
      command: { resume: { [question.id]: value } },
      stream_mode: ["messages-tuple", "updates", "custom"],
    }, { once: true });
    for (const wait of [0, 1000, 3000, 8000]) setTimeout(refreshThreads, wait);  // the run may ask the next question
  }
}
