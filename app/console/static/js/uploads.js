/** Uploads of documents: one after another, each with its progress. They go on while another page is shown. */

import { request, uuid } from "./api.js";
import { bytes, button, fill, h } from "./dom.js";

/** Events: "stored" (the server has a document more). */
class Uploads extends EventTarget {
  constructor() {
    super();
    this.element = h("ul.uploads", { "aria-label": "Uploads" });
    this._waiting = [];
    this._current = null;
    addEventListener("beforeunload", (event) => this._current && event.preventDefault());
  }

  add(files) {
    for (const file of files) {
      const upload = new Upload(file, () => this._retry(upload));
      this._waiting.push(upload);
      this.element.append(upload.element);
    }
    this._next();
  }

  _retry(upload) {
    this._waiting.push(upload);
    this._next();
  }

  async _next() {
    if (this._current) return;
    for (let upload; (upload = this._waiting.shift()); ) {
      if (upload.dropped) continue;
      this._current = upload;
      if (await upload.send()) this.dispatchEvent(new Event("stored"));
      this._current = null;
    }
  }
}

class Upload {
  constructor(file, retry) {
    this._file = file;
    this._key = uuid();
    this._abort = new AbortController();
    this._bar = h("progress", { max: Math.max(1, file.size), value: 0, "aria-label": `Upload of ${file.name}` });
    this._state = h("span.faint");
    this._buttons = h("span.actions");
    this._problem = h("p.problem", { role: "alert", hidden: true });
    this._again = button("Try again", () => {
      this._problem.hidden = true;
      this._offer(this._cancel);
      this.say("waiting");
      retry();
    });
    this._cancel = button("Cancel", () => this._drop());
    this.element = h("li.upload", null, h("b.upload-name", { dir: "auto" }, file.name), this._state, this._buttons, this._bar, this._problem);
    this.say("waiting");
    this._offer(this._cancel);
  }

  /** Show a state next to the file's size. */
  say(state) {
    this._state.textContent = `${state} · ${bytes(this._file.size)}`;
  }

  /** Send the file; resolve to whether the server has it. */
  async send() {
    const body = new FormData();
    body.append("file", this._file);
    const sending = {
      method: "POST",
      body,
      headers: { "Idempotency-Key": this._key },
      signal: this._abort.signal,
      onSent: (part) => this._show(part),
      onLost: () => this.say("the server does not answer: sent again when it is back"),
    };
    try {
      this._show(0);
      await request("/documents", sending);
      this.element.remove();
      return true;
    } catch (error) {
      if (!this.dropped) this._fail(error);
      return false;
    }
  }

  _show(part) {
    this._bar.hidden = false;
    const percent = Math.floor(part * 100);
    this._bar.value = part * this._bar.max;
    this.say(percent < 100 ? `${percent} % sent` : "sent, being stored");
  }

  _fail(error) {
    this._problem.textContent = error.detail ?? error.message;
    this._problem.hidden = false;
    this._bar.hidden = true;
    this.say("not uploaded");
    this._offer(this._again, button("Dismiss", () => this._drop()));
  }

  _offer(...buttons) {
    fill(this._buttons, buttons);
  }

  _drop() {
    this.dropped = true;
    this._abort.abort();
    this.element.remove();
  }
}

export const uploads = new Uploads();
