/** The input of a conversation. A draft is kept for its thread, in this tab, until it was sent. */

import { fill, h, icon, iconButton, problemPlace } from "./dom.js";

const MAX_FILE = 4_000_000;
const TEXT = /^(text\/|application\/(json|xml|x-yaml|javascript|toml))|\.(md|csv|py|js|ts|toml|ya?ml|json|log|sql|sh|txt|html|css)$/i;

export class Composer {
  /** `send(content)` may reject; then all that was written stays. `stop()` ends the live run. */
  constructor({ send, stop, draftKey = "new" }) {
    this._send = send;
    this.draftKey = draftKey;
    this._files = [];
    this._problem = problemPlace();
    this._chips = h("div.chips");
    this.input = h("textarea", {
      rows: "1", placeholder: "Write a message…", "aria-label": "Message", dir: "auto", value: sessionStorage.getItem(this._key) ?? "",
    });
    this._pick = h("input", { type: "file", multiple: true, hidden: true, "aria-label": "Files to attach", tabindex: "-1" });
    this._go = iconButton("send", "Send", () => this._submit(), { class: "send" });
    this._halt = iconButton("stop", "Stop the run", stop, { class: "send stop", hidden: true });
    this.element = h("form.composer", { "aria-label": "New message" }, this._problem, this._chips,
      h("div.composer-line", null,
        iconButton("attach", "Attach images or text files", () => this._pick.click()), this._pick, this.input, this._halt, this._go));
    this.input.addEventListener("input", () => this._typed());
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this._submit();
      }
    });
    this.input.addEventListener("paste", (event) => event.clipboardData.files.length && this.attach(event.clipboardData.files));
    this._pick.addEventListener("change", () => this.attach(this._pick.files));
    this.element.addEventListener("submit", (event) => event.preventDefault());
    new ResizeObserver(() => this._fit()).observe(this.input); // also once it is on the page
    this._typed();
  }

  /** The thread whose draft is kept. */
  set draftKey(key) {
    this._key = `agent-service.draft.${key}`;
  }

  set running(running) {
    this._halt.hidden = !running;
  }

  show(error) {
    this._problem.show(error);
  }

  focus() {
    this.input.focus({ preventScroll: true });
  }

  write(text) {
    this.input.value = text;
    this._typed();
    this.focus();
  }

  _typed() {
    sessionStorage.setItem(this._key, this.input.value.slice(0, 500_000));
    this._fit();
    this._go.disabled = this._sending || !(this.input.value.trim() || this._files.length);
  }

  /** Make the input as high as its text, which depends on its width. */
  _fit() {
    const width = this.input.clientWidth;
    if (!width) return;
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(this.input.scrollHeight, innerHeight * 0.4)}px`;
  }

  async _submit() {
    const text = this.input.value;
    if (this._sending || !(text.trim() || this._files.length)) return;
    const content = this._files.length
      ? [...(text.trim() ? [{ type: "text", text }] : []), ...this._files.map((file) => file.block)] : text;
    const key = this._key;
    this._sending = true;
    this._problem.show(null);
    this._typed();
    try {
      await this._send(content);
      this._files = [];
      if (this.input.value === text) this.input.value = "";
      sessionStorage.removeItem(key);
      this._chipped();
    } catch (error) {
      this._problem.show(error);
    } finally {
      this._sending = false;
      this._typed();
    }
  }

  async attach(files) {
    this._problem.show(null);
    for (const file of files) {
      try {
        if (file.size > MAX_FILE) throw new Error(`${file.name} is larger than 4 MB. Upload it under Documents, and ask about it.`);
        if (file.type.startsWith("image/")) {
          this._files.push({ name: file.name, block: { type: "image_url", image_url: { url: await dataUrl(file) } } });
        } else if (TEXT.test(file.type) || TEXT.test(file.name)) {
          this._files.push({ name: file.name, block: { type: "text", text: `\n\n${file.name}:\n\`\`\`\n${await file.text()}\n\`\`\`` } });
        } else throw new Error(`${file.name} is neither an image nor text. Upload it under Documents, and ask about it.`);
      } catch (error) {
        this._problem.show(error);
      }
    }
    this._pick.value = "";
    this._chipped();
    this._typed();
  }

  _chipped() {
    fill(this._chips, this._files.map((file) => h("span.chip", null, icon("attach", 14), file.name,
      iconButton("close", `Remove ${file.name}`, () => {
        this._files = this._files.filter((one) => one !== file);
        this._chipped();
        this._typed();
      }))));
  }
}

function dataUrl(file) {
  return new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => fail(reader.error);
    reader.readAsDataURL(file);
  });
}
