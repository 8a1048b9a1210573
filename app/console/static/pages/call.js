/** How to call an agent from a program: the same agent on each wire of this server. */

import { get, ROOT, storedKey, uuid } from "../js/api.js";
import { copy, fill, h, iconButton, pageHead } from "../js/dom.js";
import { highlight } from "../js/highlight.js";
import { agents, chosenAgent } from "../js/state.js";

const LANGUAGES = { sh: "Shell", python: "Python", js: "JavaScript" };

export const page = (id) => new CallPage(id);

/**
 * Snippets by tab, as lists of `[language, text]`: `agent` is called by its name or id, `graph` is its name, `base` the
 * server's address without a slash, `key` whether it asks for one.
 */
function snippets(agent, graph, base, key) {
  const name = JSON.stringify(agent);
  const path = encodeURIComponent(agent);
  const post = (url, body, ...headers) => [`curl -sN ${base}${url} -H 'Content-Type: application/json'`, ...[...headers, ...(key ? ["Authorization: Bearer $AGENT_KEY"] : [])].map((header) => `-H "${header}"`),
    `-d '${JSON.stringify(body).replaceAll("'", "'\\''")}'`].join(" \\\n  ");
  const own = key ? "\n  headers: { Authorization: `Bearer ${key}` }," : "";
  return {
    curl: [["sh", post("/api/v1/runs/stream", { assistant_id: agent, stream_mode: "messages-tuple", input: "Hello" })]],
    Python: [["python", `# pip install langgraph-sdk
from langgraph_sdk import get_sync_client

with get_sync_client(url="${base}/api/v1"${key ? ', api_key="…"' : ""}) as client:
    thread_id = client.threads.create()["thread_id"]
    for part in client.runs.stream(thread_id, ${name}, input="Hello", stream_mode="messages-tuple"):
        if part.event == "messages":
            print(part.data[0]["content"], end="", flush=True)`]],
    JavaScript: [["js", `// npm install @langchain/langgraph-sdk
import { Client } from "@langchain/langgraph-sdk";

const client = new Client({ apiUrl: "${base}/api/v1"${key ? ", apiKey: process.env.AGENT_KEY" : ""} });
const { thread_id } = await client.threads.create();
const input = { messages: [{ role: "user", content: "Hello" }] };
for await (const part of client.runs.stream(thread_id, ${name}, { input, streamMode: "messages-tuple" })) {
  if (part.event === "messages") process.stdout.write(part.data[0].content);
}`]],
    OpenAI: [["python", `# pip install openai
from openai import OpenAI

client = OpenAI(base_url="${base}/v1", api_key="${key ? "…" : "none"}")
answer = client.chat.completions.create(
    model=${name},
    messages=[{"role": "user", "content": "Hello"}],
)
print(answer.choices[0].message.content)`]],
    Responses: [["sh", `# with OpenAI's libraries: client.responses.create(model=${name}, input="Hello"), base_url ${base}/v1
${post("/v1/responses", { model: agent, input: "Hello" })}`]],
    "AI SDK": [["js", `// npm install ai @ai-sdk/react
import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport } from "ai";

const transport = new DefaultChatTransport({
  api: "${base}/ai-sdk/${path}/chat",${own}
});
export const useAgent = () => useChat({ transport });`]],
    "AG-UI": [["js", `// npm install @ag-ui/client
import { HttpAgent } from "@ag-ui/client";

const agent = new HttpAgent({
  url: "${base}/ag-ui/${path}",${own}
});
agent.addMessage({ id: crypto.randomUUID(), role: "user", content: "Hello" });
await agent.runAgent({}, { onTextMessageContentEvent: ({ event }) => process.stdout.write(event.delta) });`],
    ["sh", `# the same runId again is the same run
` + post(`/ag-ui/${path}`, { threadId: "chat-1", runId: uuid(), messages: [{ id: "m-1", role: "user", content: "Hello" }], tools: [], context: [], state: {}, forwardedProps: {} })]],
    A2A: [["sh", `# the card, by which other agents find this one
curl -s ${base}/a2a/${path}/.well-known/agent-card.json`],
    ["sh", post(`/a2a/${path}`, { jsonrpc: "2.0", id: 1, method: "SendMessage", params: { message: { messageId: uuid(), role: "ROLE_USER", parts: [{ text: "Hello" }] } } }, "A2A-Version: 1.0")]],
    MCP: [["sh", `# the configuration of a client: claude, cursor, codex or vscode
agent-service mcp config claude --url ${base} --assistant ${path}`],
    ["sh", post(`/mcp/${path}`, { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: graph, arguments: { input: "Hello" } } }, "MCP-Protocol-Version: 2025-11-25")]],
  };
}

class CallPage {
  title = "Call it";

  constructor(id) {
    this._id = id || chosenAgent();
    this.element = h("div.page");
  }

  async show() {
    const agent = agents().find((one) => one.assistant_id === this._id) ?? (await get(`/assistants/${encodeURIComponent(this._id)}`));
    const system = agent.metadata?.created_by === "system";
    const all = snippets(system ? agent.graph_id : agent.assistant_id, agent.graph_id, ROOT.href.replace(/\/$/, ""), Boolean(storedKey()));
    const place = h("div", { role: "tabpanel" });
    const tabs = h("div.tabs", { role: "tablist" }, Object.keys(all).map((name) =>
      h("button", { type: "button", role: "tab", onclick: () => choose(name) }, name)));
    const choose = (name) => {
      for (const tab of tabs.children) tab.setAttribute("aria-selected", String(tab.textContent === name));
      fill(place, all[name].map(([language, text]) => h("div.code", null,
        h("div.code-head", null, h("span", null, LANGUAGES[language]), iconButton("copy", "Copy code", (event) => copy(text, event.currentTarget))),
        h("pre", { tabindex: "0" }, h("code", null, highlight(text, language))))));
    };
    fill(this.element, pageHead(`Call ${agent.name}`, "The same agent on every wire: threads, limits and approvals are shared."), tabs, place);
    choose("curl");
  }
}
