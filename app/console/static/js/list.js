/**
 * A list of rows that may be very long: rows lie in chunks, and only chunks near the view have nodes. The others keep
 * their height, so that the scroll bar is right.
 */

import { h, keep } from "./dom.js";

const CHUNK = 30;
const GUESSED_ROW = 96;
const NEAR = 120;

export class RowList {
  /** `scroller` scrolls; `render(item)` returns an object with `element` and `update(item)`. */
  constructor(scroller, render) {
    this.element = h("div.rows");
    this._scroller = scroller;
    this._render = render;
    this._chunks = [];
    this._views = new Map();
    this._observer = new IntersectionObserver((entries) => this._seen(entries), { root: scroller, rootMargin: "1200px 0px" });
    this._follow = true;
    scroller.addEventListener("scroll", () => (this._follow = this._atEnd()), { passive: true });
    // what a person opens stays where it is
    this.element.addEventListener("click", ({ target }) => target.closest("summary") && (this._follow = false));
    this._sizes = new ResizeObserver(() => this._follow && this.toEnd());
    this._sizes.observe(this.element);
  }

  close() {
    this._observer.disconnect();
    this._sizes.disconnect();
  }

  /** Show `items`, each with an id and a type. Views of items that were shown stay. */
  set(items) {
    const kept = this._follow;
    const count = Math.ceil(items.length / CHUNK);
    for (const chunk of this._chunks.splice(count)) {
      this._observer.unobserve(chunk.element);
      this._refill(chunk, []);
      chunk.element.remove();
    }
    for (let index = 0; index < count; index++) {
      const part = items.slice(index * CHUNK, (index + 1) * CHUNK);
      if (index < this._chunks.length) this._refill(this._chunks[index], part);
      else this._chunk(part);
    }
    const last = this._chunks.at(-1);
    if (last) this._mount(last);
    if (kept) this.toEnd();
  }

  _refill(chunk, items) {
    const before = chunk.items;
    chunk.items = items;
    if (!chunk.mounted) {
      if (before.length !== items.length) chunk.element.style.height = `${(chunk.height = items.length * GUESSED_ROW)}px`;
      return;
    }
    keep(chunk.element, items.map((item) => this._view(item)));
    for (const { id } of before) if (!this._views.get(id)?.element.isConnected) this._views.delete(id);
  }

  /** Show changes: `items` are all items now; only those at the end may be new. */
  sync(items, changed) {
    const known = this._chunks.reduce((sum, chunk) => sum + chunk.items.length, 0);
    this._chunks.forEach((chunk, index) => {
      chunk.items = items.slice(index * CHUNK, (index + 1) * CHUNK).slice(0, chunk.items.length);
    });
    for (const id of changed) {
      const view = this._views.get(id);
      const item = view && items.findLast((one) => one.id === id);
      if (item) view.update(item);
    }
    for (const item of items.slice(known)) this._append(item);
    // the end is followed when the browser has laid this out: to ask where it is would lay it out once more
  }

  toEnd() {
    this._follow = true;
    this._scroller.scrollTop = this._scroller.scrollHeight;
  }

  get atEnd() {
    return this._follow;
  }

  _append(item) {
    const last = this._chunks.at(-1);
    if (!last || last.items.length >= CHUNK) {
      this._chunk([item]);
      this._mount(this._chunks.at(-1));
      return;
    }
    last.items.push(item);
    if (last.mounted) last.element.append(this._view(item));
    else this._mount(last);
  }

  _chunk(items) {
    const chunk = { items, mounted: false, element: h("div.chunk"), height: items.length * GUESSED_ROW };
    chunk.element.style.height = `${chunk.height}px`;
    chunk.element.chunk = chunk;
    this._chunks.push(chunk);
    this.element.append(chunk.element);
    this._observer.observe(chunk.element);
  }

  _view(item) {
    const shown = this._views.get(item.id);
    if (shown?.type === item.type) {
      shown.update(item);
      return shown.element;
    }
    const view = this._render(item);
    view.type = item.type;
    this._views.set(item.id, view);
    return view.element;
  }

  _mount(chunk) {
    if (chunk.mounted) return;
    chunk.mounted = true;
    chunk.element.style.height = "";
    chunk.element.replaceChildren(...chunk.items.map((item) => this._view(item)));
  }

  _unmount(chunk) {
    chunk.height = chunk.element.offsetHeight;
    chunk.element.style.height = `${chunk.height}px`;
    chunk.mounted = false;
    for (const item of chunk.items) this._views.delete(item.id);
    chunk.element.replaceChildren();
  }

  _seen(entries) {
    for (const { target, isIntersecting } of entries) {
      const { chunk } = target;
      if (isIntersecting) this._mount(chunk);
      else if (chunk.mounted && chunk !== this._chunks.at(-1)) this._unmount(chunk);
    }
  }

  _atEnd() {
    const { scrollTop, scrollHeight, clientHeight } = this._scroller;
    return scrollHeight - scrollTop - clientHeight < NEAR;
  }
}
