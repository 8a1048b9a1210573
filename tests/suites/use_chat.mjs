// Journeys of the AI SDK's chat, the state behind useChat. Arguments: the server's address, the folder of the packages.
// Prints one JSON line for each check: {"name", "ok", "detail"?}.

import { strict as assert } from "node:assert";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [base, modules] = process.argv.slice(2);
const require = createRequire(`${modules}/package.json`);
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { Chat } = await load("@ai-sdk/react");
const { DefaultChatTransport, lastAssistantMessageIsCompleteWithApprovalResponses } = await load("ai");

const SUM = "what is 12*(3+4)?";

async function check(name, journey) {
  try {
    await journey();
    console.log(JSON.stringify({ name, ok: true }));
  } catch (error) {
    console.log(JSON.stringify({ name, ok: false, detail: String(error?.stack ?? error) }));
  }
}

const chatWith = (agent, options = {}) =>
  new Chat({
    id: crypto.randomUUID(),
    transport: new DefaultChatTransport({ api: `${base}/ai-sdk/${agent}/chat` }),
    onError: (error) => { throw error; },
    ...options,
  });
const textOf = (message) => message.parts.filter((part) => part.type === "text").map((part) => part.text).join("\n");
const stored = async (chat) => {
  const state = await (await fetch(`${base}/api/v1/threads/${chat.id}/state`)).json();
  return state.values.messages.filter((message) => message.type === "human").map((message) => message.content);
};
const texts = (contents) => contents.map((one) => (typeof one === "string" ? one : one.map((part) => part.text).join("")));
const until = async (condition) => {
  const deadline = Date.now() + 40_000;
  while (!condition()) {
    assert.ok(Date.now() < deadline, "it did not happen in time");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};

await check("two turns, with a tool of the server", async () => {
  const chat = chatWith("assistant");
  await chat.sendMessage({ text: SUM });
  assert.equal(chat.status, "ready");
  assert.match(textOf(chat.lastMessage), /84/);
  const call = chat.lastMessage.parts.find((part) => part.toolCallId);
  assert.equal(call.state, "output-available");
  await chat.sendMessage({ text: "hello" });
  assert.deepEqual(chat.messages.map((message) => message.role), ["user", "assistant", "user", "assistant"]);
  assert.deepEqual(texts(await stored(chat)), [SUM, "hello"]);
});

await check("an edited message replaces what followed it", async () => {
  const chat = chatWith("echo");
  await chat.sendMessage({ text: "one" });
  await chat.sendMessage({ text: "two" });
  await chat.sendMessage({ text: "uno", messageId: chat.messages[0].id });
  assert.equal(chat.messages.length, 2);
  assert.match(textOf(chat.lastMessage), /uno/);
  assert.deepEqual(texts(await stored(chat)), ["uno"]);
});

await check("another answer takes the place of the last one", async () => {
  const chat = chatWith("assistant");
  await chat.sendMessage({ text: SUM });
  await chat.regenerate();
  assert.equal(chat.messages.length, 2);
  assert.match(textOf(chat.lastMessage), /84/);
  assert.deepEqual(texts(await stored(chat)), [SUM]);
});

await check("a call is approved, and the run goes on", async () => {
  const chat = chatWith("careful", { sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses });
  await chat.sendMessage({ text: SUM });
  const asked = chat.lastMessage.parts.find((part) => part.state === "approval-requested");
  await chat.addToolApprovalResponse({ id: asked.approval.id, approved: true });
  await until(() => chat.status === "ready" && /84/.test(textOf(chat.lastMessage)));
  assert.equal(chat.messages.length, 2);
});

await check("another tab follows a run in progress", async () => {
  const first = chatWith("slow");
  const running = first.sendMessage({ text: "what time is it? wait 60" });
  await until(() => first.lastMessage?.role === "assistant" && textOf(first.lastMessage));
  const second = chatWith("slow", { id: first.id, messages: first.messages.slice(0, 1) });
  const following = second.resumeStream();
  await until(() => second.lastMessage.role === "assistant" && textOf(second.lastMessage));
  await fetch(`${base}/ai-sdk/slow/chat/${first.id}/stop`, { method: "POST" });
  await Promise.all([running, following]);
  assert.equal(textOf(second.lastMessage), textOf(first.lastMessage));
  assert.equal(second.lastMessage.id, first.lastMessage.id);
});

await check("nothing is resumed when nothing runs", async () => {
  const chat = chatWith("echo");
  await chat.sendMessage({ text: "one" });
  await chat.resumeStream();
  assert.deepEqual([chat.status, chat.messages.length], ["ready", 2]);
});

await check("an error of the server is the chat's error", async () => {
  const errors = [];
  const chat = chatWith("no-such-agent", { onError: (error) => errors.push(error) });
  await chat.sendMessage({ text: "one" });
  assert.equal(chat.status, "error");
  assert.match(errors[0].message, /no-such-agent/);
});
