/** Draw an agent's graph: nodes in layers from the start, edges as curves; nodes that run now are lit. */

import { h, svg } from "./dom.js";

const WIDE = 150;
const HIGH = 42;
const GAP_X = 34;
const GAP_Y = 52;

/** Return a drawing of `{nodes, edges}`; `lit` has the ids of nodes to highlight. */
export function drawGraph({ nodes, edges }, lit = new Set()) {
  const names = new Map(nodes.map((node) => [String(node.id), String(node.data?.name ?? node.id)]));
  const layers = layered([...names.keys()], edges);
  const place = new Map();
  const widest = Math.max(1, ...layers.map((layer) => layer.length));
  const width = widest * (WIDE + GAP_X) + 120;
  layers.forEach((layer, row) => layer.forEach((id, column) => place.set(id, {
    x: width / 2 + (column - (layer.length - 1) / 2) * (WIDE + GAP_X), y: 30 + row * (HIGH + GAP_Y), row,
  })));
  const height = 60 + (layers.length - 1) * (HIGH + GAP_Y);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "graph", role: "img", "aria-label": describe(names, edges) },
    svg("defs", {}, svg("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto" },
      svg("path", { d: "M0 0 8 4 0 8z", class: "arrow" }))));
  for (const edge of edges) {
    const from = place.get(String(edge.source));
    const to = place.get(String(edge.target));
    if (!from || !to) continue;
    drawing.append(svg("path", { d: curve(from, to, width), class: edge.conditional ? "edge conditional" : "edge", "marker-end": "url(#arrow)" }));
  }
  for (const [id, { x, y }] of place) {
    const end = id === "__start__" || id === "__end__";
    const name = names.get(id);
    drawing.append(svg("g", { class: `node${end ? " end" : ""}${lit.has(id) ? " lit" : ""}` },
      svg("title", {}, name),
      svg("rect", { x: x - WIDE / 2 + (end ? 30 : 0), y: y - HIGH / 2, width: WIDE - (end ? 60 : 0), height: HIGH, rx: end ? 21 : 10 }),
      svg("text", { x, y: y + 5, "text-anchor": "middle" }, end ? name.replaceAll("_", "") : name.length > 19 ? `${name.slice(0, 18)}…` : name)));
  }
  return h("div.graph-wrap", null, drawing);
}

function layered(ids, edges) {
  const depth = new Map([["__start__", 0]]);
  const queue = ["__start__"];
  while (queue.length) {
    const id = queue.shift();
    for (const edge of edges.filter((one) => String(one.source) === id)) {
      const target = String(edge.target);
      if (!depth.has(target)) {
        depth.set(target, depth.get(id) + 1);
        queue.push(target);
      }
    }
  }
  const deepest = Math.max(0, ...[...depth.entries()].filter(([id]) => id !== "__end__").map(([, level]) => level));
  if (ids.includes("__end__")) depth.set("__end__", deepest + 1);
  const layers = [];
  for (const id of ids) (layers[depth.get(id) ?? deepest] ??= []).push(id);
  return layers.filter(Boolean);
}

function curve(from, to, width) {
  if (from === to) return `M${from.x + WIDE / 2} ${from.y - 8}c40 -30 40 46 4 22`;
  if (to.row > from.row + 1) {
    const side = from.x + WIDE / 2 + 26;
    return `M${from.x + 40} ${from.y + HIGH / 2}C${side} ${from.y + HIGH} ${side} ${to.y - HIGH} ${to.x + 40} ${to.y - HIGH / 2 - 2}`;
  }
  if (to.row > from.row) return `M${from.x} ${from.y + HIGH / 2}C${from.x} ${from.y + HIGH} ${to.x} ${to.y - HIGH} ${to.x} ${to.y - HIGH / 2 - 2}`;
  const side = Math.min(from.x, to.x) - WIDE / 2 - 30;
  return `M${from.x - WIDE / 2} ${from.y}C${side} ${from.y} ${side} ${to.y} ${to.x - WIDE / 2 - 2} ${to.y}`;
}

const describe = (names, edges) => `Graph: ${edges.map((edge) => `${names.get(String(edge.source))} to ${names.get(String(edge.target))}`).join(", ")}`;
