// Journeys of AG-UI's own client and of CopilotKit's runtime client. Arguments: the server's address.
// Prints one JSON line for each check: {"name", "ok", "detail"?}.
import { strict as assert } from "node:assert";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [base, modules] = process.argv.slice(2);
const require = createRequire(`${modules}/package.json`);
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { HttpAgent, buildResumeArray } = await load("@ag-ui/client");
const { ProxiedCopilotRuntimeAgent } = await load("@copilotkit/core");

const SUM = "what is 12*(3+4)?";
const user = (content) => ({ id: crypto.randomUUID(), role: "user", content });
const said = (agent) => agent.messages.filter((m) => m.role === "assistant").map((m) => m.content ?? "").join("\n");

async function check(name, journey) {
  try {
    await journey();
    console.log(JSON.stringify({ name, ok: true }));
  } catch (error) {
    console.log(JSON.stringify({ name, ok: false, detail: String(error?.stack ?? error) }));
  }
}

const http = (agent, threadId) => new HttpAgent({ url: `${base}/ag-ui/${agent}`, threadId });
const copilot = (agent, threadId, transport) => {
  const proxied = new ProxiedCopilotRuntimeAgent({ runtimeUrl: `${base}/copilotkit`, agentId: agent, transport });
  proxied.threadId = threadId;
  return proxied;
};

await check("a conversation of two runs, with a tool of the server", async () => {
  const agent = http("assistant", crypto.randomUUID());
  agent.addMessage(user(SUM));
  await agent.runAgent();
  assert.match(said(agent), /84/);
  const roles = agent.messages.map((m) => m.role);
  assert.deepEqual(roles, ["user", "assistant", "tool", "assistant"]);
  agent.addMessage(user("hello"));
  await agent.runAgent();
  assert.equal(agent.messages.filter((m) => m.role === "user").length, 2);
});

await check("another tab has the same messages after its first run", async () => {
  const thread = crypto.randomUUID();
  const first = http("assistant", thread);
  first.addMessage(user(SUM));
  await first.runAgent();
  const second = http("assistant", thread);
  second.addMessage(user("hello"));
  await second.runAgent();
  assert.deepEqual(second.messages.slice(0, 4).map((m) => m.id), first.messages.map((m) => m.id));
});

await check("an interrupt is approved", async () => {
  const agent = http("careful", crypto.randomUUID());
  agent.addMessage(user(SUM));
  await agent.runAgent();
  assert.equal(agent.pendingInterrupts.length, 1);
  const answers = { [agent.pendingInterrupts[0].id]: { status: "resolved", payload: { approved: true } } };
  await agent.runAgent({ resume: buildResumeArray(agent.pendingInterrupts, answers) });
  assert.equal(agent.pendingInterrupts.length, 0);
  assert.match(said(agent), /84/);
});

await check("an interrupt is given up", async () => {
  const agent = http("careful", crypto.randomUUID());
  agent.addMessage(user(SUM));
  await agent.runAgent();
  const answers = { [agent.pendingInterrupts[0].id]: { status: "cancelled" } };
  await agent.runAgent({ resume: buildResumeArray(agent.pendingInterrupts, answers) });
  assert.equal(agent.pendingInterrupts.length, 0);
  assert.ok(!agent.messages.some((m) => m.role === "tool" && m.content === "84"));
});

await check("an unknown agent fails the run", async () => {
  const agent = http("nope", crypto.randomUUID());
  agent.addMessage(user("hello"));
  const quiet = console.error;
  console.error = () => {};
  await assert.rejects(agent.runAgent(), /404/);
  console.error = quiet;
});

for (const transport of ["rest", "single", "auto"]) {
  await check(`CopilotKit: run, then connect elsewhere (${transport})`, async () => {
    const thread = crypto.randomUUID();
    const agent = copilot("assistant", thread, transport);
    agent.addMessage(user(SUM));
    await agent.runAgent();
    assert.match(said(agent), /84/);
    const elsewhere = copilot("assistant", thread, transport);
    await elsewhere.connectAgent();
    assert.deepEqual(elsewhere.messages, agent.messages);
  });
}

await check("CopilotKit: an interrupt is seen and answered elsewhere", async () => {
  const thread = crypto.randomUUID();
  const agent = copilot("careful", thread, "rest");
  agent.addMessage(user(SUM));
  await agent.runAgent();
  const elsewhere = copilot("careful", thread, "rest");
  await elsewhere.connectAgent();
  assert.deepEqual(elsewhere.pendingInterrupts.map((i) => i.id), agent.pendingInterrupts.map((i) => i.id));
  const answers = { [elsewhere.pendingInterrupts[0].id]: { status: "resolved", payload: { approved: true } } };
  await elsewhere.runAgent({ resume: buildResumeArray(elsewhere.pendingInterrupts, answers) });
  assert.match(said(elsewhere), /84/);
});

await check("CopilotKit: stop cancels the run in progress", async () => {
  const thread = crypto.randomUUID();
  const agent = copilot("slow", thread, "rest");
  agent.addMessage(user("call clock"));
  const running = agent.runAgent({}, { onRunStartedEvent: () => agent.abortRun() });
  await running;
  const elsewhere = copilot("slow", thread, "rest");
  await elsewhere.connectAgent();
  assert.equal(elsewhere.messages.filter((m) => m.role === "user").length, 1);
});

process.exit(0);
