/** What answers cost, by the server's price list. */

import { get } from "./api.js";

const MILLION = 1e6;

let prices = null;
let loading = null;

/** Load the price list once; without it no cost is shown. */
export function loadPrices() {
  loading ??= get("/prices").then((found) => (prices = found), () => (prices = []));
  return loading;
}

/** Call `draw`, and again once the price list is there if it is not yet. */
export function drawPriced(draw) {
  draw();
  if (!prices) loadPrices().then(draw);
}

/** The dollars of an answer; null if its model has no price of its own. */
export function costOf({ usage_metadata: usage, response_metadata: from }) {
  if (!prices || !usage || !from?.model_name) return null;
  const name = `${from.model_provider ?? ""}:${from.model_name}`;
  const fitting = prices.filter(({ model }) => name.startsWith(model)).sort((one, other) => other.model.length - one.model.length);
  return fitting.length ? (usage.input_tokens * fitting[0].input + usage.output_tokens * fitting[0].output) / MILLION : null;
}
