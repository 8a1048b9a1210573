/** Documents: uploaded with their progress, read chunk by chunk, and searched. */

import { call, get, query } from "../js/api.js";
import { ago, bytes, button, counted, empty, fill, h, icon, number, pageHead, problemPlace, status } from "../js/dom.js";
import { longText } from "../js/markdown.js";
import { Poll } from "../js/poll.js";
import { link } from "../js/router.js";
import { Listing, sureButton } from "../js/table.js";
import { uploads } from "../js/uploads.js";

const POLL_MS = 1500;

export const page = (id, chunk) => (id ? new DocumentPage(id, chunk) : new DocumentsPage());

class DocumentsPage {
  title = "Documents";

  constructor() {
    this._busy = true;
    this._poll = new Poll(async () => this._busy && this._list.reload(), POLL_MS);
    this._problem = problemPlace();
    this._found = h("div", { "aria-live": "polite" });
    this._pick = h("input", { type: "file", multiple: true, hidden: true, "aria-label": "Files to upload", accept: ".txt,.md,.html,.htm,.pdf,text/*,application/pdf" });
    this._pick.addEventListener("change", () => {
      uploads.add([...this._pick.files]);
      this._pick.value = "";
    });
    this._onStored = () => this._list.reload();
    uploads.addEventListener("stored", this._onStored);
    this._query = h("input", { type: "text", placeholder: "Find passages", "aria-label": "Find passages", class: "grow" });
    const search = h("form.filters", { role: "search" }, this._query, h("button.button", { type: "submit" }, icon("search", 15), "Search"));
    search.addEventListener("submit", (event) => {
      event.preventDefault();
      this._search();
    });
    this._list = new Listing({
      label: "Documents",
      load: (offset) => get(`/documents?limit=50&offset=${offset}`).then((found) => {
        this._busy = found.some((one) => ["pending", "running"].includes(one.status)) || (offset > 0 && this._busy);
        return found;
      }),
      none: empty("No document yet", "Text, Markdown, HTML or PDF: drop files here. Agents with the tool search_documents answer from them."),
      columns: [
        ["Document", (one) => [h("a.named", { href: link(`documents/${one.document_id}`), "data-go": `documents/${one.document_id}`, dir: "auto" }, one.title ?? one.filename ?? one.document_id), one.error && h("div.problem", null, one.error)]],
        ["Status", (one) => status(one.status)],
        ["Chunks", (one) => number(one.chunks), "end"],
        ["Size", (one) => bytes(one.size), "end"],
        ["Collection", (one) => one.collection],
        ["Added", (one) => ago(one.created_at)],
        ["", (one) => sureButton("Delete", () => this._do(() => call("DELETE", `/documents/${one.document_id}`)), { kind: "danger" })],
      ],
    });
    this.element = h("div.page", null, pageHead("Documents", "What agents can search and cite.",
      button("Upload", () => this._pick.click(), { kind: "primary", glyph: "plus" })), this._pick, this._problem, uploads.element, search, this._found, this._list.element);
    this.element.addEventListener("drop", (event) => uploads.add([...event.dataTransfer.files]));
  }

  show() {
    return this._poll.start();
  }

  close() {
    this._poll.stop();
    uploads.removeEventListener("stored", this._onStored);
  }

  async _do(act) {
    try {
      await act();
      this._problem.show(null);
      await this._list.reload();
    } catch (error) {
      this._problem.show(error);
    }
  }

  async _search() {
    const text = this._query.value.trim();
    const turn = (this._turn = Symbol("search"));
    if (!text) return fill(this._found);
    await this._do(async () => {
      const { passages } = await query("/documents/search", { query: text, limit: 8 });
      if (turn !== this._turn) return;
      fill(this._found, passages.map((one) => h("article.card", null, h("p.faint", null,
        [one.title ?? one.filename ?? one.document_id, one.page && `page ${one.page}`, typeof one.score === "number" && `score ${one.score.toFixed(3)}`].filter(Boolean).join(" · ")),
      h("p.plain", { dir: "auto" }, one.text))), !passages.length && h("p.faint", null, "No passage fits."));
    });
  }
}

class DocumentPage {
  title = "Document";

  /** `cited`: the number of the chunk to look at first. */
  constructor(id, cited) {
    this._id = id;
    this._cited = cited;
    this.element = h("div.page");
  }

  async show() {
    const id = encodeURIComponent(this._id);
    const [one, chunks] = await Promise.all([get(`/documents/${id}`), get(`/documents/${id}/chunks?limit=100`)]);
    fill(this.element, pageHead(one.title ?? one.filename ?? "Document", `${one.content_type} · ${bytes(one.size)} · ${counted(one.chunks, "chunk")}`, status(one.status)),
      one.error && h("p.problem", null, one.error),
      chunks.map((chunk) => h("article.card", { "aria-current": String(chunk.chunk) === this._cited && "true" }, h("p.faint", null, `Chunk ${chunk.chunk}, characters ${number(chunk.start)} to ${number(chunk.end)}${chunk.page ? `, page ${chunk.page}` : ""}`), longText(chunk.text))),
      one.chunks > chunks.length && h("p.faint", null, `The first ${chunks.length} of ${number(one.chunks)} chunks.`));
    this.element.querySelector("[aria-current]")?.scrollIntoView({ block: "center" });
  }
}
