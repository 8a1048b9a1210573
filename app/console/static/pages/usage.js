/** Tokens by day and agent, counted from the newest runs. */

import { fill, fullDate, h, number, pageHead, problemPlace, svg } from "../js/dom.js";
import { searchRuns } from "../js/runs.js";
import { agentName } from "../js/state.js";

/** Runs that are read, in pages. */
const MOST = 2000;
const PAGE = 500;
const FIELDS = ["assistant_id", "status", "created_at", "usage"];
/** Agents with a colour of their own; the others share the last one. */
const COLOURS = 6;
const [WIDE, HIGH, LEFT, LOW] = [720, 220, 64, 24];
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

export const page = () => new UsagePage();

class UsagePage {
  title = "Usage";

  constructor() {
    this._problem = problemPlace();
    this._counted = h("p.faint.filters");
    this._chart = h("div");
    this._table = h("div");
    this._days = h("select", { "aria-label": "Period", onchange: () => this.show() }, [[7, "7 days"], [14, "14 days"], [30, "30 days"]]
      .map(([value, label]) => h("option", { value, selected: value === 14 }, label)));
    this.element = h("div.page", null, pageHead("Usage", "Tokens by day and agent.", this._days), this._problem, this._counted, this._chart, this._table);
  }

  async show() {
    const turn = (this._turn = Symbol("period"));
    try {
      const days = lastDays(Number(this._days.value));
      const { runs, cut } = await newestRuns(days[0]);
      if (turn !== this._turn) return;
      const used = usageOf(runs, days);
      const since = cut ? runs.at(-1).created_at : days[0].toISOString();
      this._counted.textContent = cut ? `The newest ${number(runs.length)} runs are counted, back to ${fullDate(since)}. Older ones are not in these figures.`
        : `All ${number(runs.length)} runs since ${fullDate(since)} are counted.`;
      fill(this._chart, h("article.card", null, chart(used, days)));
      fill(this._table, table(used));
      this._problem.show(null);
    } catch (error) {
      this._problem.show(error);
    }
  }
}

/** The starts of the last days, in this browser's time zone, oldest first. */
function lastDays(count) {
  const today = new Date();
  return Array.from({ length: count }, (_, index) => new Date(today.getFullYear(), today.getMonth(), today.getDate() - count + 1 + index));
}

async function newestRuns(since) {
  const runs = [];
  let next = null;
  do {
    const found = await searchRuns({ created_after: since.toISOString(), limit: PAGE, select: FIELDS, ...(next && { before: next }) });
    runs.push(...found.runs);
    next = found.next;
  } while (next && runs.length < MOST);
  return { runs, cut: Boolean(next) };
}

/** Sums by agent, the largest first: `{name, runs, failed, input, output, byDay}`; `byDay` are tokens. */
function usageOf(runs, days) {
  const found = new Map();
  for (const run of runs) {
    const id = run.assistant_id;
    if (!found.has(id)) found.set(id, { name: agentName(id), runs: 0, failed: 0, input: 0, output: 0, byDay: days.map(() => 0) });
    const sums = found.get(id);
    sums.runs += 1;
    sums.failed += run.status === "error" || run.status === "timeout";
    sums.input += run.usage?.input_tokens ?? 0;
    sums.output += run.usage?.output_tokens ?? 0;
    sums.byDay[days.findLastIndex((day) => day <= new Date(run.created_at))] += run.usage?.total_tokens ?? 0;
  }
  return [...found.values()].sort((one, other) => other.input + other.output - one.input - one.output);
}

const colour = (index) => `series-${Math.min(index, COLOURS - 1)}`;

/** Bars of one day each, in parts of one agent each. */
function chart(used, days) {
  const sums = days.map((_, day) => used.reduce((sum, one) => sum + one.byDay[day], 0));
  const most = Math.max(1, ...sums);
  const slot = (WIDE - LEFT) / days.length;
  const scale = (HIGH - LOW - 10) / most;
  const label = `Tokens by day: ${days.map((day, index) => `${DAY.format(day)} ${number(sums[index])}`).join(", ")}`;
  const drawing = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, class: "chart", role: "img", "aria-label": label });
  for (const part of [0, 0.5, 1]) {
    const y = HIGH - LOW - part * most * scale;
    drawing.append(svg("path", { d: `M${LEFT} ${y}H${WIDE}`, class: "grid-line" }),
      svg("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, number(Math.round(part * most))));
  }
  days.forEach((day, index) => {
    const x = LEFT + index * slot;
    let y = HIGH - LOW;
    used.forEach((one, place) => {
      const height = one.byDay[index] * scale;
      if (!height) return;
      y -= height;
      drawing.append(svg("rect", { x: x + slot * 0.15, y, width: slot * 0.7, height, class: colour(place) },
        svg("title", {}, `${DAY.format(day)}, ${one.name}: ${number(one.byDay[index])} tokens`)));
    });
    if (index % Math.ceil(days.length / 10) === 0) drawing.append(svg("text", { x: x + slot / 2, y: HIGH - 6, "text-anchor": "middle" }, DAY.format(day)));
  });
  return h("div.graph-wrap", { tabindex: "0", role: "region", "aria-label": "Tokens by day" }, drawing);
}

function table(used) {
  const cells = (tag, values) => values.map((value) => h(`${tag}.end`, tag === "th" ? { scope: "col" } : null, value));
  return h("div.table-wrap", { tabindex: "0", role: "region", "aria-label": "Usage by agent" }, h("table", null,
    h("thead", null, h("tr", null, h("th", { scope: "col" }, "Agent"), cells("th", ["Runs", "Failed", "Tokens in", "Tokens out", "Tokens"]))),
    h("tbody", null, used.map((one, index) => h("tr", null,
      h("th", { scope: "row" }, h("span.swatch", { class: colour(index) }), one.name),
      cells("td", [one.runs, one.failed, one.input, one.output, one.input + one.output].map(number)))))));
}
