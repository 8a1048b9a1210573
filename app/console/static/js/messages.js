/** Views of messages: what a person said, what a model answered, what its tools did. */

import { showSources } from "./citations.js";
import { add, bytes, copy, dollars, duration, fill, h, icon, iconButton, number, pretty } from "./dom.js";
import { longText, Markdown } from "./markdown.js";
import { costOf, drawPriced } from "./prices.js";
import { textOf } from "./session.js";
import { classMeaning, classTag, findTool } from "./tools.js";

const IMAGE = /^data:image\/(png|jpeg|gif|webp);base64,/i;

/** Return the images and files of a message's content blocks. */
function attachments(content) {
  if (!Array.isArray(content)) return [];
  return content.filter((block) => block && typeof block === "object" && block.type !== "text").map((block) => {
    const url = sourceOf(block);
    const name = String(block.name ?? block.filename ?? block.file?.filename ?? block.type ?? "file");
    // only data that the message itself has: an address would tell its host who reads this
    const save = url.startsWith("data:") && h("a.save", { href: url, download: name, "aria-label": `Download ${name}` }, "Download");
    if (IMAGE.test(url)) return h("figure.attached", null, h("img.picture", { src: url, alt: name }), save);
    return h("div.attached", null, h("details.attachment", null, h("summary", null, icon("attach", 14), name), h("pre", { tabindex: "0" }, pretty(block, 20_000))), save);
  });
}

function sourceOf(block) {
  const image = block.image_url;
  if (image) return String(typeof image === "object" ? image.url : image);
  const source = [block.source, block.file].find((one) => one && typeof one === "object") ?? block;
  const data = source.data ?? source.base64 ?? source.file_data;
  if (!data || String(data).startsWith("data:")) return String(data ?? source.url ?? "");
  const kind = source.mime_type ?? source.media_type ?? (block.type === "file" ? "application/octet-stream" : "image/png");
  return `data:${kind};base64,${data}`;
}

/** Make the views of a thread's messages. `actions`: `edit`, `redo`, `fork` and `events`, each of a message. */
export function messageView(message, session, actions) {
  if (message.type === "human") return new HumanView(message, actions);
  if (message.type === "ai") return new AnswerView(message, session, actions);
  return new OtherView(message);
}

class HumanView {
  constructor(message, actions) {
    this.body = h("div.bubble", { dir: "auto" });
    this.element = h("article.row.human", { "aria-label": "You" }, this.body,
      h("div.row-actions", null,
        iconButton("edit", "Edit and send again", () => actions.edit(this.message, this.element)),
        iconButton("copy", "Copy", (event) => copy(textOf(this.message.content), event.currentTarget))));
    this.update(message);
  }

  update(message) {
    this.message = message;
    fill(this.body, attachments(message.content), longText(textOf(message.content)));
  }
}

class AnswerView {
  constructor(message, session, actions) {
    this._session = session;
    this._markdown = new Markdown();
    this._calls = new Map();
    this._tools = h("div.tools");
    this._thought = null;
    this._files = h("div.files");
    this._foot = h("div.answer-foot");
    this._sources = h("div.sources");
    this.body = h("div.answer", { dir: "auto" }, this._markdown.element, this._files, this._tools, this._sources);
    this._actions = h("div.row-actions", null,
      iconButton("copy", "Copy answer", (event) => copy(textOf(this.message.content), event.currentTarget)),
      iconButton("redo", "Answer again", () => actions.redo(this.message)),
      iconButton("fork", "Copy the thread up to here", () => actions.fork(this.message)),
      iconButton("runs", "Show the events of its run", () => actions.events(this.message, this.element)));
    this.element = h("article.row.ai", { "aria-label": "Agent" }, this.body, this._foot);
    this.update(message);
  }

  update(message) {
    this.message = message;
    const text = textOf(message.content);
    this._markdown.show(text);
    this.element.classList.toggle("streaming", Boolean(message.streaming));
    this.element.classList.toggle("only-tools", !text);
    const reasoning = message.reasoning ?? message.additional_kwargs?.reasoning_content;
    if (reasoning) this._think(reasoning, message);
    if (this._shown !== message.content && Array.isArray(message.content)) fill(this._files, attachments(message.content));
    this._shown = message.content;
    for (const call of message.tool_calls ?? []) this._call(call);
    for (const call of message.invalid_tool_calls ?? []) this._call({ ...call, invalid: true });
    if (message.streaming) return;
    this._footer(message);
    showSources(this._sources, message, this._session.messages);
  }

  _think(reasoning, message) {
    if (!this._thought) {
      this._thoughts = h("div.plain", { dir: "auto" });
      this._thought = h("details.thought", null, h("summary", null, icon("brain", 16), "Reasoning"), this._thoughts);
      this.body.prepend(this._thought);
    }
    this._thoughts.textContent = reasoning.slice(0, 100_000);
    this._thought.classList.toggle("live", Boolean(message.streaming && !textOf(message.content)));
  }

  _call(call) {
    let view = this._calls.get(call.id);
    if (!view) {
      view = new CallView(call);
      this._calls.set(call.id, view);
      this._tools.append(view.element);
    }
    view.update(call, this._session.resultOf(call.id), this._session);
  }

  _footer(message) {
    const usage = message.usage_metadata;
    const { model_name: model, retries } = message.response_metadata ?? {};
    drawPriced(() => {
      const cost = costOf(message);
      const about = [model, usage && tokens(usage), cost && dollars(cost), retries && retried(retries)].filter(Boolean).join(" · ");
      fill(this._foot, about && h("span.faint", null, about), this._actions);
    });
  }
}

/** How often the call of a model was sent again. */
export const retried = (times) => `${times} ${times === 1 ? "retry" : "retries"}`;

export function tokens(usage) {
  const cached = usage.input_token_details?.cache_read;
  return `${number(usage.input_tokens)} in${cached ? ` (${number(cached)} cached)` : ""}, ${number(usage.output_tokens)} out`;
}

/** A tool call: its arguments at a glance, all of it when opened. */
class CallView {
  constructor() {
    this._name = h("b");
    this._brief = h("span.brief");
    this._class = h("span.call-class");
    this._state = h("span.call-state");
    this._body = h("div.call-body");
    this.element = h("details.call", null,
      h("summary", null, icon("tool", 16), this._name, this._class, this._brief, this._state, icon("down", 14)), this._body);
    this.element.addEventListener("toggle", () => this.element.open && this._open());
  }

  update(call, result, session) {
    this._since ??= call.since;
    if (this._result === result && this._args === call.args && this._text === call.text && this._live === Boolean(session.run)) return;
    if (result && !this._result && this._since) this._took = Date.now() - this._since;
    this._call = call;
    [this._result, this._args, this._text, this._live] = [result, call.args, call.text, Boolean(session.run)];
    this._name.textContent = call.name || "…";
    this._classify(call.name, session.assistant);
    this._brief.textContent = brief(call);
    this._session = session;
    this.element.classList.toggle("waits", !result && !call.invalid);
    this._showState();
    if (this.element.open) this._open();
  }

  _showState() {
    const failed = this._result?.status === "error" || this._call.invalid;
    const state = failed ? "failed" : this._result ? "done" : this._live ? "running" : "open";
    this._state.className = `call-state ${state}`;
    this._state.textContent = this._took === undefined ? state : `${state} · ${duration(this._took)}`;
  }

  /** Show the time of a call that this page did not see: that of its step, which the history knows. */
  async _findTime() {
    if (this._took !== undefined || this._timed) return;
    this._timed = true;
    this._took = (await this._session.stepTime(this._result.id).catch(() => null)) ?? undefined;
    this._showState();
  }

  /** Show the class of the tool, once it is known. */
  async _classify(name, assistant) {
    if (!name || !assistant || this._classified === name) return;
    this._classified = name;
    const tool = await findTool(assistant, name);
    if (this._classified !== name || !tool?.tool_class) return;
    this._toolClass = tool.tool_class;
    fill(this._class, classTag(tool.tool_class));
    if (this.element.open) this._open();
  }

  _open() {
    const { _call: call, _result: result } = this;
    const given = call.args ?? call.text ?? "";
    fill(this._body, h("p.label", null, "Arguments"), h("pre", { tabindex: "0" }, pretty(given)));
    if (this._toolClass) add(this._body, h("p.call-note", null, `${this._class.textContent}: ${classMeaning(this._toolClass)}`));
    if (call.error) add(this._body, h("p.problem", null, call.error));
    if (!result) return;
    this._findTime();
    const text = textOf(result.content);
    add(this._body, h("p.label", null, `Result${text.length > 2000 ? ` (${bytes(text.length)})` : ""}`), attachments(result.content),
      h("pre", { tabindex: "0", dir: "auto" }, pretty(asJson(text))));
    if (result.artifact) add(this._body, h("p.label", null, "Artifact"), h("pre", { tabindex: "0" }, pretty(result.artifact)));
  }
}

function asJson(text) {
  if (!/^\s*[[{]/.test(text) || text.length > 200_000) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function brief(call) {
  const args = call.args;
  if (!args || typeof args !== "object") return (call.text ?? "").slice(0, 80);
  const parts = Object.entries(args).map(([name, value]) => `${name}: ${JSON.stringify(value)}`);
  const text = parts.join(", ");
  return text.length > 90 ? `${text.slice(0, 90)}…` : text;
}

/** System messages, and results whose call is not here. */
class OtherView {
  constructor(message) {
    this.body = h("div.plain");
    this.element = h("article.row.other", { "aria-label": message.type }, h("b", null, message.name ?? message.type), this.body);
    this.update(message);
  }

  update(message) {
    fill(this.body, attachments(message.content), longText(textOf(message.content)));
  }
}
