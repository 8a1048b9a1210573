/** Blocks of Markdown that are long and still grow: what is complete in them keeps its nodes, only their end is made again. */

import { h } from "./dom.js";
import { highlight } from "./highlight.js";

/** Characters of a code block in one of its parts. */
const PART = 1500;

/** Lists and tables: where a token has their items or rows, and where a page has them. */
const PARTS = { list: ["items", "ul, ol"], table: ["rows", "tbody"] };

/**
 * Return what makes the block of `token`, which `fragment` shows, longer; null if it is made again as a whole.
 * `render(token)` returns a fragment.
 */
export function growing(token, fragment, render) {
  if (token.type === "code" && token.text.length > PART) return new GrowingCode(token, fragment.querySelector("pre > code"));
  const [name, selector] = PARTS[token.type] ?? [];
  const place = name && fragment.querySelector(selector);
  return place ? new GrowingParts(token, name, selector, place, render) : null;
}

class GrowingCode {
  constructor(token, place) {
    this._token = token;
    this._place = place;
    this._done = 0;
    this._last = null;
  }

  /** Show `token` if it continues the block; return whether it does. */
  show(token) {
    const { lang, text } = this._token;
    if (token.type !== "code" || token.lang !== lang || !token.text.startsWith(text)) return false;
    this._token = token;
    if (!this._last) this._place.replaceChildren((this._last = part()));
    const whole = `${token.text.replace(/\n$/, "")}\n`; // as marked ends a block
    for (let end; token.text.length - this._done > 2 * PART && (end = token.text.indexOf("\n", this._done + PART) + 1); ) {
      this._fill(token.text.slice(this._done, end));
      this._done = end;
      this._place.append((this._last = part()));
    }
    this._fill(whole.slice(this._done));
    return true;
  }

  _fill(text) {
    this._last.replaceChildren(...highlight(text, this._token.lang?.split(/\s/)[0] ?? ""));
  }
}

const part = () => h("span.code-part");

class GrowingParts {
  constructor(token, name, selector, place, render) {
    Object.assign(this, { _token: token, _name: name, _selector: selector, _place: place, _render: render });
  }

  show(token) {
    const before = this._token;
    const at = before[this._name].length - 1; // the last one may have grown
    if (token.type !== before.type || token.loose !== before.loose || token.ordered !== before.ordered || token[this._name].length <= at) return false;
    this._token = token;
    while (this._place.children.length > at) this._place.lastElementChild.remove();
    const more = this._render({ ...token, [this._name]: token[this._name].slice(Math.max(0, at)) });
    this._place.append(...(more.querySelector(this._selector)?.children ?? []));
    return true;
  }
}
