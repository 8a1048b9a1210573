/** What a run did with its time, one row each: waits, steps with the retries of their model calls, lost workers. */

import { duration, h } from "./dom.js";
import { retried } from "./messages.js";

/**
 * Return the rows of a run, the first one first, as `{name, note, kind, state, from, to}` in milliseconds since 1970.
 * `steps` are those of `stepsOf`; `changes` those that the server has of the run.
 */
export function rowsOf(run, steps, changes) {
  const ended = run.ended_at ? Date.parse(run.ended_at) : Date.now();
  const begun = changes.map(({ at, ...change }) => ({ ...change, at: Date.parse(at) }));
  const rows = [];
  begun.forEach((change, index) => {
    const next = begun[index + 1];
    if (change.status === "pending") rows.push({ name: "queue", kind: "of-queue", from: change.at, to: next?.at ?? ended });
    if (change.status !== "running" || !next || !(next.status === "pending" || next.attempt > change.attempt)) return;
    // what this worker did after its last step is lost with it
    const from = steps.reduce((last, { to }) => (to <= next.at ? Math.max(last, to) : last), change.at);
    rows.push({ name: "lost", note: `worker ${change.attempt} is gone`, kind: "of-lost", from, to: next.at });
  });
  for (const step of steps) {
    const owned = begun.findLast(({ status, at }) => status === "running" && at <= step.to)?.at ?? step.from;
    const retries = retriesOf(step.state);
    const kind = step.name.includes("tools") ? "of-tools" : "";
    rows.push({ ...step, note: retries ? retried(retries) : "", kind, from: Math.max(step.from, owned) });
  }
  return rows.sort((one, other) => one.from - other.from || one.to - other.to);
}

/** How often the call of a model was sent again that wrote the last message of a state. */
const retriesOf = ({ values }) => (Array.isArray(values?.messages) && values.messages.at(-1)?.response_metadata?.retries) || 0;

/** Draw rows on one scale of time; a step's bar calls `choose` with its state. */
export function drawWaterfall(rows, choose) {
  const start = Math.min(...rows.map(({ from }) => from));
  const all = Math.max(1, ...rows.map(({ to }) => to - start));
  return h("ol.steps.waterfall", { tabindex: "0", "aria-label": "Waterfall" }, rows.map(({ name, note, kind, state, from, to }) => {
    const label = [name, note, duration(to - from)].filter(Boolean).join(", ");
    const bar = state ? h("button.bar", { type: "button", title: label, "aria-label": label, class: kind, onclick: () => choose(state) })
      : h("span.bar", { title: label, class: kind });
    const left = Math.min(99, ((from - start) / all) * 100);
    bar.style.left = `${left}%`;
    bar.style.width = `${Math.min(Math.max(1, ((to - from) / all) * 100), 100 - left)}%`;
    return h("li", null, h("span", null, name, note && h("span.note", null, ` ${note}`)), h("span.step-scale", null, bar), h("span.faint", null, duration(to - from)));
  }));
}
