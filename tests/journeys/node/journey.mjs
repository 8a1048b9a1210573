// What users of @langchain/langgraph-sdk do, against the server in argv; ends with 1 at the first thing that is wrong.
import assert from "node:assert/strict";
import { Client } from "@langchain/langgraph-sdk";

const [plain, steered] = process.argv.slice(2);
const client = new Client({ apiUrl: plain, apiKey: null });
const hello = { messages: [{ role: "user", content: "hello" }] };
const all = async (stream) => { const parts = []; for await (const part of stream) parts.push(part); return parts; };

// assistants
const made = await client.assistants.create({ graphId: "echo", name: "mine" });
const id = made.assistant_id;
assert.equal((await client.assistants.get(id)).name, "mine");
assert.equal((await client.assistants.update(id, { name: "ours" })).version, 2);
assert.equal((await client.assistants.getVersions(id)).length, 2);
assert.equal((await client.assistants.setLatest(id, 1)).name, "mine");
assert.ok((await client.assistants.search({ graphId: "echo" })).length >= 2);
assert.ok((await client.assistants.count({ graphId: "echo" })) >= 2);
assert.ok((await client.assistants.getGraph(id)).nodes.length);
assert.equal((await client.assistants.getSchemas(id)).graph_id, "echo");
assert.deepEqual(await client.assistants.getSubgraphs(id), {});
await client.assistants.delete(id);

// threads and runs
const { thread_id } = await client.threads.create({ metadata: { user: "ann" } });
let created;
const parts = await all(client.runs.stream(thread_id, "assistant", {
  input: { messages: [{ role: "user", content: "what is 12*(3+4)?" }] },
  streamMode: ["values", "updates", "messages-tuple", "messages", "tasks", "checkpoints", "debug", "events", "custom"],
  onRunCreated: (run) => { created = run; },
}));
assert.equal(parts[0].event, "metadata");
assert.ok(created.run_id);
for (const event of ["values", "updates", "messages", "messages/partial", "tasks", "checkpoints", "debug", "events"])
  assert.ok(parts.some((part) => part.event === event), event);
const joined = await all(client.runs.joinStream(thread_id, created.run_id, { streamMode: ["values"] }));
assert.ok(joined.some((part) => part.event === "values"));
assert.equal((await client.runs.wait(thread_id, "echo", { input: hello })).messages.at(-1).content, "echo: hello");
const run = await client.runs.create(thread_id, "echo", { input: hello });
await client.runs.join(thread_id, run.run_id);
assert.equal((await client.runs.get(thread_id, run.run_id)).status, "success");
assert.equal((await client.runs.list(thread_id)).length, 3);
await client.runs.delete(thread_id, run.run_id);
const late = await client.runs.create(thread_id, "echo", { input: hello, afterSeconds: 3600 });
await client.runs.cancel(thread_id, late.run_id);
assert.equal((await client.runs.createBatch([{ assistantId: "echo", input: hello }])).length, 1);
assert.equal((await client.threads.get(thread_id)).status, "idle");
assert.equal((await client.threads.update(thread_id, { metadata: { k: 1 } })).metadata.k, 1);
assert.ok((await client.threads.search({ metadata: { user: "ann" } })).length >= 1);
const state = await client.threads.getState(thread_id);
assert.equal(state.next.length, 0);
assert.ok((await client.threads.getHistory(thread_id)).length > 3);
await client.threads.updateState(thread_id, { values: { mood: "good" } });
assert.equal((await client.threads.getState(thread_id)).values.mood, "good");
const copy = await client.threads.copy(thread_id);
assert.notEqual(copy.thread_id, thread_id);
await client.threads.delete(thread_id);
await assert.rejects(client.threads.get(thread_id));

// a person in the loop
const people = new Client({ apiUrl: steered, apiKey: null });
const asked = await people.threads.create();
const waiting = await people.runs.wait(asked.thread_id, "careful", {
  input: { messages: [{ role: "user", content: "what is 12*(3+4)?" }] },
});
assert.equal(waiting.__interrupt__[0].value.tool, "calculator");
const answered = await people.runs.wait(asked.thread_id, "careful", { command: { resume: true } });
assert.equal(answered.messages.at(-2).content, "84");
console.log("every step went well");
