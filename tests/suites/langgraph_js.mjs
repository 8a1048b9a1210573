// Journeys of protocol v2 with LangGraph's JavaScript SDK. Arguments: the server's base address, the folder of packages.
// Prints one JSON line for each check: {"name", "ok", "detail"?}.
import { strict as assert } from "node:assert";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [base, modules] = process.argv.slice(2);
const require = createRequire(`${modules}/package.json`);
const { Client } = await import(pathToFileURL(require.resolve("@langchain/langgraph-sdk")));
const client = new Client({ apiUrl: base });

const human = (content) => ({ messages: [{ role: "user", content }] });
const SUM = human("what is 12*(3+4)?");

async function check(name, journey) {
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error("it takes too long")), 30_000).unref());
  try {
    await Promise.race([journey(), late]);
    console.log(JSON.stringify({ name, ok: true }));
  } catch (error) {
    console.log(JSON.stringify({ name, ok: false, detail: String(error?.stack ?? error) }));
  }
}

async function all(iterable) {
  const found = [];
  for await (const one of iterable) found.push(one);
  return found;
}

const last = (values) => values.messages.at(-1).content;
const transports = typeof WebSocket === "undefined" ? ["sse"] : ["sse", "websocket"];

for (const transport of transports) {
  await check(`a run with its messages, tools and output, by ${transport}`, async () => {
    const thread = client.threads.stream({ assistantId: "curious", transport });
    const said = all(thread.messages).then((messages) => Promise.all(messages.map((one) => one.text)));
    const called = all(thread.toolCalls);
    await thread.run.start({ input: SUM });
    const output = await thread.output;
    assert.match(last(output), /84/);
    assert.match((await said).join("|"), /84/);
    const [call] = await called;
    assert.equal(call.name, "calculator");
    await thread.close();
  });

  await check(`a question is answered, by ${transport}`, async () => {
    const thread = client.threads.stream({ assistantId: "careful", transport });
    await thread.run.start({ input: SUM });
    await all(thread.values);
    assert.equal(thread.interrupted, true);
    const [asked] = thread.interrupts;
    assert.equal(asked.payload.action_requests[0].name, "calculator");
    const lifecycle = await thread.subscribe(["lifecycle"]);
    await thread.input.respond({ namespace: asked.namespace, interrupt_id: asked.interruptId, response: true });
    for await (const event of lifecycle) if (event.params.data.event === "completed") break;
    const state = await thread.state.get({ namespace: [] });
    assert.match(last(state.values), /84/);
    await thread.close();
  });
}

await check("another client finds the thread as it is, and goes on", async () => {
  const first = client.threads.stream({ assistantId: "curious" });
  await first.run.start({ input: SUM });
  await first.output;
  await first.close();
  const second = client.threads.stream(first.threadId, { assistantId: "curious" });
  const state = await second.state.get({ namespace: [] });
  assert.match(last(state.values), /84/);
  const { run_id } = await second.run.start({ input: human("hello") });
  const output = await client.runs.join(first.threadId, run_id);
  assert.equal(output.messages.filter((one) => one.type === "human").length, 2);
  await second.close();
});

await check("checkpoints are listed and forked from", async () => {
  const thread = client.threads.stream({ assistantId: "curious" });
  await thread.run.start({ input: SUM });
  await thread.output;
  const { checkpoints } = await thread.state.listCheckpoints({ namespace: [], limit: 20 });
  assert.ok(checkpoints.length >= 4);
  const forked = await thread.state.fork({ checkpoint_id: checkpoints.at(-2).id, input: human("hello") });
  assert.ok(forked.run_id);
  await thread.close();
});

await check("a refused command says why", async () => {
  const thread = client.threads.stream({ assistantId: "no-such-agent" });
  await assert.rejects(thread.run.start({ input: SUM }), /no-such-agent/);
  await thread.close();
});

process.exit(0);
