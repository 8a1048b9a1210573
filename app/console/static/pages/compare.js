/** Two runs side by side: their times, their steps, and where the states that they left differ. */

import { query } from "../js/api.js";
import { stepsOf } from "../js/checkpoints.js";
import { sideBySide } from "../js/diff.js";
import { duration, fill, fullDate, h, icon, number, pageHead, status } from "../js/dom.js";
import { link } from "../js/router.js";
import { findRun, queuedFor, tookFor } from "../js/runs.js";
import { agentOf } from "../js/state.js";

/** Steps of a run that are read. */
const MAX_STEPS = 100;
const NAMES = ["First", "Second"];

export const page = (first, second) => new ComparePage([first, second]);

class ComparePage {
  title = "Compare";

  constructor(sides) {
    this._sides = sides;
    this._place = h("div.sides");
    this._difference = h("article.card");
    this.element = h("div.page", null, pageHead("Two runs", "What each took, and where the states that they left differ."), this._place, this._difference);
  }

  async show() {
    const sides = await Promise.all(this._sides.map(async (side) => {
      const [thread, id] = (side ?? "").split(".");
      const run = thread && id ? await findRun(thread, id) : null;
      if (!run) throw new Error("One of the two runs is not here any more. Choose two on the page of runs.");
      const states = await query(`/threads/${thread}/history`, { limit: MAX_STEPS, metadata: { run_id: id } });
      return { run, states, steps: stepsOf(run, states) };
    }));
    const longest = Math.max(1, ...sides.flatMap(({ steps }) => steps.map((step) => step.to - step.from)));
    fill(this._place, sides.map((side, index) => this._side(side, NAMES[index], longest)));
    const [left, right] = sides.map(({ states }) => comparable(states[0]?.values ?? {}));
    fill(this._difference, h("h2", null, "The states that they left"), sideBySide(left, right, NAMES));
  }

  _side({ run, states, steps }, name, longest) {
    const path = `threads/${run.thread_id}/history/${run.run_id}`;
    const fact = (label, value) => [h("dt", null, label), h("dd", null, value)];
    return h("article.card", { "aria-label": `${name} run` },
      h("h2", null, `${name}: ${agentOf(run)} `, status(run.status)),
      run.error && h("p.problem", null, `${run.error.error}: ${run.error.message}`),
      h("dl.details", null, fact("created", fullDate(run.created_at)), fact("queue", duration(queuedFor(run))), fact("took", duration(tookFor(run))),
        fact("attempts", run.attempts), fact("tokens", run.usage ? `${number(run.usage.input_tokens)} in, ${number(run.usage.output_tokens)} out` : "–"),
        fact("steps", states.length < MAX_STEPS ? steps.length : `the last ${MAX_STEPS}`)),
      h("ol.steps", null, steps.map((step) => {
        const bar = h("span.step-bar");
        bar.style.width = `${((step.to - step.from) / longest) * 100}%`;
        return h("li", null, h("span", null, step.name), h("span.step-scale", null, bar), h("span.faint", null, duration(step.to - step.from)));
      })),
      h("a.button", { href: link(path), "data-go": path }, icon("history", 16), "History"));
  }
}

/** Messages of two runs have different ids: compare them by position. */
function comparable(values) {
  const { messages } = values;
  if (!Array.isArray(messages)) return values;
  return { ...values, messages: messages.map((message) => (message && typeof message === "object" ? { ...message, id: undefined } : message)) };
}
