/** Usage and cost of models by day, agent, key and model, as the server has counted them. */

import { get } from "../js/api.js";
import { dollars, empty, fill, h, number, pageHead, problemPlace, svg } from "../js/dom.js";
import { shownAgent } from "../js/state.js";
import { table } from "../js/table.js";

/** Agents with a colour of their own; the others share the last one. */
const COLOURS = 6;
const [WIDE, HIGH, LEFT, LOW] = [720, 220, 64, 24];
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", timeZone: "UTC" });
const MS_A_DAY = 86_400_000;
const PERIODS = [7, 14, 30, 90, 365];
/** What is drawn: its name, a field of the usage, and how its numbers are written. */
const MEASURES = { tokens: ["Tokens", "total_tokens", number], dollars: ["Cost", "dollars", dollars], runs: ["Runs", "runs", number] };

export const page = () => new UsagePage();

class UsagePage {
  title = "Usage";

  constructor() {
    this._problem = problemPlace();
    this._place = h("div");
    const select = (label, options, chosen, onchange) => h("select", { "aria-label": label, onchange },
      options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
    this._days = select("Period", PERIODS.map((days) => [days, `${days} days`]), 14, () => this.show());
    this._measure = select("Measure", Object.entries(MEASURES).map(([name, [label]]) => [name, label]), "tokens", () => this._draw());
    this.element = h("div.page", null, pageHead("Usage", "What models used and cost, by day (UTC). Prices are those of the server's list.", this._measure, this._days),
      this._problem, this._place);
  }

  async show() {
    const turn = (this._turn = Symbol("period"));
    const days = lastDays(Number(this._days.value));
    const read = (...by) => get(`/usage?since=${days[0]}${by.map((part) => `&by=${part}`).join("")}`);
    try {
      const found = await Promise.all([read("day", "agent"), read("requested_by"), read("model")]);
      if (turn !== this._turn) return;
      this._found = found;
      this._shown = days;
      this._draw();
      this._problem.show(null);
    } catch (error) {
      if (turn === this._turn) this._problem.show(error);
    }
  }

  _draw() {
    if (!this._found) return;
    const [byDay, byKey, byModel] = this._found;
    const measure = MEASURES[this._measure.value];
    const agents = sumsOf(byDay, measure[1], this._shown);
    if (!agents.length) return fill(this._place, empty("Nothing was used", "Tokens show here within a second; a run counts when its worker has ended it."));
    const drawing = chart(agents, this._shown, measure);
    fill(this._place, h("article.card", null, drawing),
      usageTable("Agent", agents.map((one, index) => ({ ...one, swatch: colour(index), label: shownAgent(one.agent) || "outside of runs" }))),
      usageTable("Key or user", largest(byKey).map((one) => ({ ...one, label: one.key_name ? `${one.key_name} (${one.requested_by})` : one.requested_by || "unknown" }))),
      byModel.length > 0 && usageTable("Model", largest(byModel).map((one) => ({ ...one, label: one.model })), false));
    drawing.scrollLeft = drawing.scrollWidth; // the newest days
  }
}

/** The last days in UTC, oldest first, such as 2026-11-30. */
const lastDays = (count) => Array.from({ length: count }, (_, index) => new Date(Date.now() - (count - 1 - index) * MS_A_DAY).toISOString().slice(0, 10));

const SUMMED = ["runs", "failed", "input_tokens", "output_tokens", "total_tokens", "dollars"];

const largest = (rows) => rows.sort((one, other) => other.dollars - one.dollars || other.total_tokens - one.total_tokens || other.runs - one.runs);

/** Sums by agent, the largest first; `byDay` has the values of `field`. */
function sumsOf(rows, field, days) {
  const found = new Map();
  for (const row of rows) {
    if (!found.has(row.agent)) found.set(row.agent, { agent: row.agent, byDay: days.map(() => 0), ...Object.fromEntries(SUMMED.map((name) => [name, 0])) });
    const sums = found.get(row.agent);
    for (const name of SUMMED) sums[name] += row[name];
    const at = days.indexOf(row.day);
    if (at >= 0) sums.byDay[at] += row[field];
  }
  return largest([...found.values()]);
}

const colour = (index) => `series-${Math.min(index, COLOURS - 1)}`;
const dayName = (day) => DAY.format(new Date(day));

/** Bars of one day each, in parts of one agent each. */
function chart(used, days, [title, , format]) {
  const sums = days.map((_, day) => used.reduce((sum, one) => sum + one.byDay[day], 0));
  const most = format === number ? 2 * Math.ceil(Math.max(...sums) / 2) || 2 : Math.max(...sums) || 1;  // halves of counts are counts
  const slot = (WIDE - LEFT) / days.length;
  const scale = (HIGH - LOW - 10) / most;
  const label = `${title} by day: ${days.map((day, index) => `${dayName(day)} ${format(sums[index])}`).join(", ")}`;
  const drawing = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, class: "chart", role: "img", "aria-label": label });
  for (const part of [0, 0.5, 1]) {
    const y = HIGH - LOW - part * most * scale;
    drawing.append(svg("path", { d: `M${LEFT} ${y}H${WIDE}`, class: "grid-line" }),
      svg("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, format(part * most)));
  }
  days.forEach((day, index) => {
    const x = LEFT + index * slot;
    let y = HIGH - LOW;
    used.forEach((one, place) => {
      const height = one.byDay[index] * scale;
      if (!height) return;
      y -= height;
      drawing.append(svg("rect", { x: x + slot * 0.15, y, width: slot * 0.7, height, class: colour(place) },
        svg("title", {}, `${dayName(day)}, ${one.agent}: ${format(one.byDay[index])}`)));
    });
    if (index % Math.ceil(days.length / 10) === 0) drawing.append(svg("text", { x: x + slot / 2, y: HIGH - 6, "text-anchor": "middle" }, dayName(day)));
  });
  return h("div.graph-wrap", { tabindex: "0", role: "region", "aria-label": `${title} by day` }, drawing);
}

function usageTable(title, rows, runs = true) {
  const columns = [...(runs ? [["Runs", "runs", number], ["Failed", "failed", number]] : []),
    ["Tokens in", "input_tokens", number], ["Tokens out", "output_tokens", number], ["Tokens", "total_tokens", number], ["Cost", "dollars", dollars]];
  return table(`Usage by ${title.toLowerCase()}`, [title, ...columns.map(([name]) => [name, "end"])], rows.map((row) =>
    h("tr", null, h("th", { scope: "row", dir: "auto" }, row.swatch && h("span.swatch", { class: row.swatch }), row.label),
      columns.map(([, field, format]) => h("td.end", null, format(row[field]))))));
}
