/** Agents and assistants: what they are, their graph, and how to call them. */

import { get } from "../js/api.js";
import { ago, button, fill, h, pageHead, pretty } from "../js/dom.js";
import { drawGraph } from "../js/graph.js";
import { go, link } from "../js/router.js";
import { agents, chooseAgent, loadAgents } from "../js/state.js";
import { classMeaning, classTag } from "../js/tools.js";

export const page = (id) => (id ? new AgentPage(id) : new AgentsPage());

class AgentsPage {
  title = "Agents";

  async show() {
    await loadAgents();
    fill(this._grid, agents().map((one) => {
      const path = `agents/${one.assistant_id}`;
      return h("article.card", null, h("h2", null, h("a.card-link", { href: link(path), "data-go": path }, one.name || one.graph_id)),
        h("p.faint", null, one.description || `An assistant of ${one.graph_id}.`), h("div.spacer"),
        h("div.buttons", null, button("Chat", () => talk(one), { glyph: "chat" }), button("Call it", () => go(`call/${one.assistant_id}`), { glyph: "code" })));
    }));
  }

  element = h("div.page", null, pageHead("Agents", "What this server can run."), (this._grid = h("div.grid")));
}

function talk(agent) {
  chooseAgent(agent.assistant_id);
  go("");
}

class AgentPage {
  constructor(id) {
    this._id = id;
    this.title = "Agent";
    this.element = h("div.page");
  }

  async show() {
    const id = encodeURIComponent(this._id);
    const [agent, ...parts] = await Promise.all(["", "/graph", "/schemas", "/tools"].map((part) => get(`/assistants/${id}${part}`)));
    const [graph, schemas, tools] = parts;
    this.title = agent.name;
    fill(this.element, pageHead(agent.name, agent.description ?? "",
      button("Chat", () => talk(agent), { kind: "primary", glyph: "chat" }), button("Call it", () => go(`call/${agent.assistant_id}`), { glyph: "code" })),
      h("section.card", null, h("h2", null, "Graph"), drawGraph(graph)),
      tools.length > 0 && h("section.card", null, h("h2", null, "Tools"), tools.map(toolView)),
      h("section.card", null, h("h2", null, "About"), h("dl.details", null,
        [["Agent", agent.graph_id], ["Assistant", h("code", null, agent.assistant_id)], ["Version", agent.version], ["Created", ago(agent.created_at)]]
          .map(([name, value]) => [h("dt", null, name), h("dd", null, value)]))),
      [["Configuration", { config: agent.config, context: agent.context, metadata: agent.metadata }], ["Input", schemas.input_schema],
        ["State", schemas.state_schema], ["Output", schemas.output_schema]].filter(([, value]) => value).map(([name, value]) =>
        h("details.card", null, h("summary", null, h("b", null, name)), h("pre", { tabindex: "0" }, pretty(value)))));
  }
}

function toolView(tool) {
  return h("details.tool", null, h("summary", null, h("b", null, tool.name), classTag(tool.tool_class), tool.approval && h("span.tag", null, "needs approval")),
    h("p.plain", null, tool.description), tool.tool_class && h("p.faint", null, classMeaning(tool.tool_class)), h("pre", { tabindex: "0" }, pretty(tool.parameters)));
}
