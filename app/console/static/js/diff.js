/** What changed between two states: by value, with messages compared by id. */

import { add, h, pretty } from "./dom.js";
import { textOf } from "./session.js";
import { table } from "./table.js";

/** Return rows `{path, before, after}` of what differs; lists of messages become one row a message. */
function differences(before, after, path = "") {
  if (same(before, after)) return [];
  if (isList(before) && isList(after)) return listDifferences(before, after, path);
  if (isObject(before) && isObject(after)) {
    const names = new Set([...Object.keys(before), ...Object.keys(after)]);
    return [...names].flatMap((name) => differences(before[name], after[name], path ? `${path}.${name}` : name));
  }
  if (isObject(after) && before === undefined && !path) return differences({}, after, path);
  if (isList(after) && before === undefined) return listDifferences([], after, path);
  return [{ path, before, after }];
}

function listDifferences(before, after, path) {
  const keyOf = (one, index) => (isObject(one) && one.id ? String(one.id) : `${index}`);
  const old = new Map(before.map((one, index) => [keyOf(one, index), one]));
  const rows = after.flatMap((one, index) => {
    const key = keyOf(one, index);
    const earlier = old.get(key);
    old.delete(key);
    return same(earlier, one) ? [] : [{ path: `${path}[${index}]`, before: earlier, after: one }];
  });
  for (const one of old.values()) rows.push({ path: `${path}[${before.indexOf(one)}]`, before: one, after: undefined });
  return rows;
}

const isList = Array.isArray;
const isObject = (value) => typeof value === "object" && value !== null && !isList(value);
const same = (one, other) => one === other || JSON.stringify(one) === JSON.stringify(other);

/** Return what changed as a list: added, changed and removed values. */
export function diffView(before, after) {
  const rows = differences(before ?? {}, after ?? {});
  if (!rows.length) return h("p.faint", null, "No value changed in this step.");
  return h("ul.diff", null, rows.slice(0, 200).map((row) => {
    const kind = row.before === undefined ? "added" : row.after === undefined ? "removed" : "changed";
    return h("li", { class: kind }, h("span.visually-hidden", null, `${kind}: `), h("code", null, row.path), brief(row.after ?? row.before, kind === "changed" && row.before));
  }), rows.length > 200 && h("li", null, `… ${rows.length - 200} more`));
}

/** Return what differs between two states as a table, one of them in each column. */
export function sideBySide(left, right, [leftName, rightName]) {
  const rows = differences(left ?? {}, right ?? {});
  if (!rows.length) return h("p.faint", null, "No value differs.");
  const cell = (value) => h("td", null, value === undefined ? h("span.faint", null, "–") : brief(value));
  const lines = rows.slice(0, 200).map((row) => h("tr", null, h("th", { scope: "row" }, h("code", null, row.path)), cell(row.before), cell(row.after)));
  return add(table("Differences", ["Value", leftName, rightName], lines, "compared"), rows.length > 200 && h("p.faint", null, `… ${rows.length - 200} more`));
}

function brief(value, before) {
  if (isObject(value) && value.type && "content" in value) {
    const calls = (value.tool_calls ?? []).map((call) => `${call.name}(${JSON.stringify(call.args)})`).join(", ");
    return h("div", null, h("b", null, `${value.type}${value.name ? ` ${value.name}` : ""}: `), textOf(value.content).slice(0, 400), calls && h("div.mono", null, `→ ${calls.slice(0, 400)}`));
  }
  return h("div", null, before !== false && before !== undefined && h("pre.old", { tabindex: "0" }, pretty(before, 4000)), h("pre", { tabindex: "0" }, pretty(value, 4000)));
}
