/** How to call an agent from a program: the same agent on each wire of this server. */

import { get, ROOT } from "../js/api.js";
import { copy, fill, h, iconButton, pageHead } from "../js/dom.js";
import { highlight } from "../js/highlight.js";
import { agents, chosenAgent } from "../js/state.js";

export const page = (id) => new CallPage(id);

/** Snippets by name. `base` is the server's address without a slash, `key` whether it asks for one. */
function snippets(agent, base, key) {
  const bearer = key ? " \\\n  -H \"Authorization: Bearer $AGENT_KEY\"" : "";
  const name = JSON.stringify(agent);
  return {
    curl: ["sh", `curl -sN ${base}/api/v1/runs/stream -H 'Content-Type: application/json'${bearer} \\\n  -d '{"assistant_id": ${name}, "stream_mode": "messages-tuple", "input": "Hello"}'`],
    Python: ["python", `# pip install langgraph-sdk
from langgraph_sdk import get_sync_client

with get_sync_client(url="${base}/api/v1"${key ? ', api_key="…"' : ""}) as client:
    thread_id = client.threads.create()["thread_id"]
    for part in client.runs.stream(thread_id, ${name}, input="Hello", stream_mode="messages-tuple"):
        if part.event == "messages":
            print(part.data[0]["content"], end="", flush=True)`],
    JavaScript: ["js", `// npm install @langchain/langgraph-sdk
import { Client } from "@langchain/langgraph-sdk";

const client = new Client({ apiUrl: "${base}/api/v1"${key ? ", apiKey: process.env.AGENT_KEY" : ""} });
const { thread_id } = await client.threads.create();
const input = { messages: [{ role: "user", content: "Hello" }] };
for await (const part of client.runs.stream(thread_id, ${name}, { input, streamMode: "messages-tuple" })) {
  if (part.event === "messages") process.stdout.write(part.data[0].content);
}`],
    OpenAI: ["python", `# pip install openai
from openai import OpenAI

client = OpenAI(base_url="${base}/v1", api_key="${key ? "…" : "none"}")
answer = client.chat.completions.create(
    model=${name},
    messages=[{"role": "user", "content": "Hello"}],
)
print(answer.choices[0].message.content)`],
    "AI SDK": ["js", `// npm install ai @ai-sdk/react
import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport } from "ai";

const transport = new DefaultChatTransport({
  api: "${base}/ai-sdk/${agent}/chat",${key ? "\n  headers: { Authorization: `Bearer ${key}` }," : ""}
});
export const useAgent = () => useChat({ transport });`],
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
    const all = snippets(system ? agent.graph_id : agent.assistant_id, ROOT.href.replace(/\/$/, ""), Boolean(sessionStorage.getItem("agent-service.key")));
    const place = h("div", { role: "tabpanel" });
    const tabs = h("div.tabs", { role: "tablist" }, Object.keys(all).map((name) =>
      h("button", { type: "button", role: "tab", onclick: () => choose(name) }, name)));
    const choose = (name) => {
      const [language, text] = all[name];
      for (const tab of tabs.children) tab.setAttribute("aria-selected", String(tab.textContent === name));
      fill(place, h("div.code", null, h("div.code-head", null, h("span", null, name), iconButton("copy", "Copy code", (event) => copy(text, event.currentTarget))),
        h("pre", { tabindex: "0" }, h("code", null, highlight(text, language)))));
    };
    fill(this.element, pageHead(`Call ${agent.name}`, "The same agent on every wire: threads, limits and approvals are shared."), tabs, place);
    choose("curl");
  }
}
