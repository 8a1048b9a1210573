// Every public method of LangGraph's JavaScript SDK. Arguments: the server's base address, the folder of packages.
// Prints one JSON line for each check: {"name", "ok", "detail"?}; then {"methods", "called"}, as "threads.getState".
import { strict as assert } from "node:assert";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [base, modules] = process.argv.slice(2);
const require = createRequire(`${modules}/package.json`);
const { Client } = await import(pathToFileURL(require.resolve("@langchain/langgraph-sdk")));
const client = new Client({ apiUrl: base });
const called = new Set();
const AREAS = ["assistants", "threads", "runs", "crons", "store"];
const INHERITED = ["constructor", "fetch", "prepareFetchOptions", "streamWithRetry"];

const hello = { messages: [{ role: "user", content: "hello" }] };
const SUM = { messages: [{ role: "user", content: "what is 12*(3+4)?" }] };
const mark = () => ({ mark: crypto.randomUUID() });

// What an object offers: the members of its class and of those above it.
function members(object) {
  const found = new Set();
  for (let at = Object.getPrototypeOf(object); at && at !== Object.prototype; at = Object.getPrototypeOf(at))
    for (const name of Object.getOwnPropertyNames(at)) found.add(name);
  return [...found].filter((name) => !INHERITED.includes(name));
}

// The same object, which records what is taken from it. Calls that it makes itself are not recorded.
function recorded(object, path) {
  return new Proxy(object, {
    get(target, name) {
      const value = Reflect.get(target, name, target);
      if (typeof name === "string") called.add(`${path}.${name}`);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

const { assistants, threads, runs, crons, store } = Object.fromEntries(
  AREAS.map((area) => [area, recorded(client[area], area)]),
);

// A stream of protocol 2, which records too.
function opened(...given) {
  const thread = threads.stream(...given);
  const recording = recorded(thread, "threads.stream()");
  const parts = Object.fromEntries(MODULES.map((name) => [name, recorded(thread[name], `threads.stream().${name}`)]));
  return new Proxy(recording, { get: (target, name) => parts[name] ?? target[name] });
}
const MODULES = ["run", "agent", "input", "state"];

async function check(name, journey) {
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error("it takes too long")), 60_000).unref());
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

async function first(count, iterable) {
  const found = [];
  for await (const one of iterable) if (found.push(one) === count) break;
  return found;
}

await check("assistants", async () => {
  const made = await assistants.create({ graphId: "echo", name: "mine", metadata: mark() });
  const id = made.assistant_id;
  assert.equal((await assistants.get(id)).name, "mine");
  assert.equal((await assistants.update(id, { name: "ours" })).version, 2);
  assert.deepEqual((await assistants.getVersions(id)).map((one) => one.version), [2, 1]);
  assert.equal((await assistants.setLatest(id, 1)).name, "mine");
  assert.deepEqual((await assistants.search({ metadata: made.metadata })).map((one) => one.assistant_id), [id]);
  assert.equal(await assistants.count({ metadata: made.metadata }), 1);
  assert.ok((await assistants.getGraph(id)).nodes.length);
  assert.equal((await assistants.getSchemas(id)).graph_id, "echo");
  assert.deepEqual(await assistants.getSubgraphs(id), {});
  await assistants.delete(id);
  await assert.rejects(assistants.get(id), { status: 404 });
});

await check("threads", async () => {
  const metadata = mark();
  const { thread_id } = await threads.create({ metadata, graphId: "echo", ttl: 60 });
  await runs.wait(thread_id, "echo", { input: hello });
  assert.equal((await threads.get(thread_id, { include: ["ttl"] })).ttl.ttl_minutes, 60);
  assert.equal((await threads.update(thread_id, { metadata: { more: 1 } })).metadata.more, 1);
  const selected = await threads.search({ metadata, select: ["thread_id", "status"], sortBy: "created_at" });
  assert.deepEqual(selected, [{ thread_id, status: "idle" }]);
  assert.equal(await threads.count({ metadata }), 1);
  const state = await threads.getState(thread_id);
  assert.equal(state.values.messages.length, 2);
  assert.deepEqual(await threads.getState(thread_id, undefined, { select: ["next"] }), { next: [] });
  await threads.updateState(thread_id, { values: { mood: "good" }, checkpoint: state.checkpoint });
  const history = await threads.getHistory(thread_id, { limit: 10 });
  assert.equal(history.length, 4);
  assert.equal((await threads.getState(thread_id, history[1].checkpoint)).values.mood, undefined);
  assert.equal((await threads.getHistory(thread_id, { before: { configurable: history[0].checkpoint } })).length, 3);
  const some = await threads.getHistory(thread_id, { limit: 1, select: ["values", "checkpoint"] });
  assert.deepEqual(Object.keys(some[0]).sort(), ["checkpoint", "values"]);
  const [mood] = await threads.getHistory(thread_id, { limit: 1, select: ["values.mood"] });
  assert.deepEqual(mood, { values: { mood: "good" } });
  const wanted = { select: ["next", "values.mood"] };
  assert.deepEqual(await threads.getState(thread_id, some[0].checkpoint, wanted), { next: [], ...mood });
  assert.deepEqual(await threads.getState(thread_id, some[0].checkpoint.checkpoint_id, wanted), { next: [], ...mood });
  await assert.rejects(threads.getState(thread_id, undefined, { select: ["nothing"] }), { status: 422 });
  assert.equal((await first(3, threads.joinStream(thread_id, { lastEventId: "-1" }))).length, 3);
  const copy = await threads.copy(thread_id);
  assert.equal(await threads.count({ metadata }), 2);
  assert.equal((await threads.prune([copy.thread_id], { strategy: "keep_latest" })).pruned_count, 1);
  await threads.delete(thread_id);
  await assert.rejects(threads.get(thread_id), { status: 404 });
});

await check("runs", async () => {
  const { thread_id } = await threads.create();
  const { run_id } = await runs.create(thread_id, "echo", { input: hello });
  assert.equal((await runs.join(thread_id, run_id)).messages.length, 2);
  assert.equal((await runs.get(thread_id, run_id)).status, "success");
  assert.equal((await all(runs.joinStream(thread_id, run_id, { streamMode: "values" }))).at(-1).event, "end");
  assert.equal((await runs.wait(thread_id, "echo", { input: hello })).messages.length, 4);
  const streamed = await all(runs.stream(thread_id, "echo", { input: hello, streamMode: ["values", "messages-tuple"] }));
  assert.equal(streamed[0].event, "metadata");
  assert.ok(streamed.some((one) => one.event === "messages"));
  assert.ok((await all(runs.stream(null, "echo", { input: hello }))).some((one) => one.event === "values"));
  assert.equal((await runs.list(thread_id, { limit: 10 })).length, 3);
  assert.deepEqual(Object.keys((await runs.list(thread_id, { limit: 1, select: ["run_id"] }))[0]), ["run_id"]);
  const batch = await runs.createBatch([{ assistantId: "echo", input: hello }, { assistantId: "echo", input: hello }]);
  assert.equal(batch.length, 2);
  const late = [];
  for (let one = 0; one < 2; one++)
    late.push((await runs.create(thread_id, "echo", { input: hello, afterSeconds: 3600 })).run_id);
  await runs.cancel(thread_id, late[0], true);
  await runs.cancelMany({ threadId: thread_id, runIds: [late[1]] });
  for (const one of late) assert.equal((await runs.get(thread_id, one)).status, "interrupted");
  await runs.delete(thread_id, run_id);
  assert.equal((await runs.list(thread_id)).length, 4);
});

await check("crons", async () => {
  const metadata = mark();
  const { thread_id } = await threads.create();
  const bound = await crons.createForThread(thread_id, "echo", { schedule: "0 0 1 1 *", input: hello });
  const cron = await crons.create("echo", { schedule: "0 0 1 1 *", input: hello, metadata, timezone: "Asia/Tokyo" });
  assert.match(cron.next_run_date, /12-31T15:00:00/);
  assert.deepEqual((await crons.search({ threadId: thread_id })).map((one) => one.cron_id), [bound.cron_id]);
  assert.equal((await crons.update(cron.cron_id, { enabled: false })).next_run_date, null);
  assert.equal(await crons.count({ metadata }), 1);
  for (const one of [bound, cron]) await crons.delete(one.cron_id);
  assert.equal(await crons.count({ threadId: thread_id }), 0);
});

await check("store", async () => {
  const place = ["users", crypto.randomUUID()];
  await store.putItem(place, "k", { likes: "tea" }, { index: ["likes"], ttl: 60 });
  assert.deepEqual((await store.getItem(place, "k", { refreshTtl: false })).value, { likes: "tea" });
  const found = await store.searchItems(place, { filter: { likes: "tea" } });
  assert.deepEqual(found.items.map((one) => one.key), ["k"]);
  assert.deepEqual(await store.listNamespaces({ suffix: place.slice(1) }), { namespaces: [place] });
  await store.deleteItem(place, "k");
  assert.equal(await store.getItem(place, "k"), null);
});

await check("a stream with all that it shows", async () => {
  const { thread_id } = await threads.create();
  const thread = opened(thread_id, { assistantId: "curious" });
  const events = [];
  thread.onEvent((event) => events.push(event.method));
  thread.onError(() => {});
  const nothing = ["subgraphs", "subagents", "audio", "images", "video", "files"].map((name) => all(thread[name]));
  const said = all(thread.messages).then((many) => Promise.all(many.map((one) => one.text)));
  const [calls, snapshots] = [all(thread.toolCalls), all(thread.values)];
  assert.ok(thread.extensions);
  await thread.run.start({ input: SUM });
  assert.match((await thread.output).messages.at(-1).content, /84/);
  assert.match((await said).join("|"), /84/);
  assert.equal((await calls)[0].name, "calculator");
  assert.ok((await snapshots).length >= 2);
  for (const none of nothing) assert.deepEqual(await none, []);
  assert.ok(events.includes("lifecycle"));
  assert.ok((await thread.agent.getTree()).tree);
  thread.startLifecycleWatcher();
  await thread.close();
});

await check("a stream that asks, is answered, and goes on", async () => {
  const thread = opened({ assistantId: "careful" });
  await thread.run.start({ input: SUM });
  await all(thread.values);
  const [asked] = thread.interrupts;
  const { namespace, interruptId: interrupt_id } = asked;
  const ended = await thread.subscribe(["lifecycle"]);
  await thread.respondInput({ namespace, interrupt_id, response: true });
  for await (const event of ended) if (event.params.data.event === "completed") break;
  const { values } = await thread.state.get({ namespace: [] });
  assert.match(values.messages.at(-1).content, /84/);
  const asking = await thread.subscribe("input");
  await thread.submitRun({ input: SUM });
  for await (const { params } of asking) {
    const { namespace: at, data } = params;
    if (data.interrupt_id === interrupt_id) continue; // the answered one, which a new subscription shows too
    await thread.input.respond({ namespace: at, interrupt_id: data.interrupt_id, response: true });
    break;
  }
  await thread.close();
});

await check("a stream whose thread gets a message and a fork", async () => {
  const { thread_id } = await threads.create();
  await runs.wait(thread_id, "curious", { input: hello });
  const thread = opened(thread_id, { assistantId: "curious" });
  await thread.input.inject({ message: { role: "user", content: "what is 1+1?" } });
  await runs.join(thread_id, (await runs.list(thread_id))[0].run_id);
  const { checkpoints } = await thread.state.listCheckpoints({ namespace: [], limit: 20 });
  const forked = await thread.state.fork({ checkpoint_id: checkpoints.at(-2).id, input: hello });
  assert.ok((await runs.join(thread_id, forked.run_id)).messages.length);
  await thread.close();
});

const stream = client.threads.stream({ assistantId: "echo" });
const methods = [
  ...AREAS.flatMap((area) => members(client[area]).map((name) => `${area}.${name}`)),
  ...members(stream).map((name) => `threads.stream().${name}`),
  ...MODULES.flatMap((module) =>
    [...Object.keys(stream[module]), ...members(stream[module])].map((name) => `threads.stream().${module}.${name}`)),
];
console.log(JSON.stringify({ methods: methods.sort(), called: [...called].sort() }));
process.exit(0);
