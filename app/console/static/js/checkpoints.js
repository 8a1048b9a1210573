/** The step that made a checkpoint. */

import { duration } from "./dom.js";

/** The node that made a state: what was next at the one before. */
export function nodeOf(state, parent) {
  if (state.metadata?.source === "input") return "input";
  if (state.metadata?.source === "update") return "edited";
  if (parent?.next?.length) return parent.next.join(", ");
  return state.metadata?.source === "fork" ? "fork" : state.next?.[0] === "__start__" ? "start" : "step";
}

/** How long the step took that made a state, as text; empty if it is not known. */
export function took(state, parent) {
  const ms = parent ? Date.parse(state.created_at) - Date.parse(parent.created_at) : NaN;
  return Number.isFinite(ms) && ms >= 0 && state.metadata?.source === "loop" ? ` · ${duration(ms)}` : "";
}

/** The steps of a run, oldest first, as `{state, name, from, to}` in milliseconds since 1970; `states` are newest first. */
export function stepsOf(run, states) {
  let before = Date.parse(run.started_at ?? run.created_at);
  const made = states.filter((state) => state.metadata?.run_id === run.run_id && Date.parse(state.created_at) >= Date.parse(run.created_at));
  return made.reverse().map((state) => {
    const step = { state, name: nodeOf(state, states.find((one) => one.checkpoint_id === state.parent_checkpoint_id)), from: before, to: Math.max(before, Date.parse(state.created_at)) };
    before = step.to;
    return step;
  });
}
