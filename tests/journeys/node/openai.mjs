// What users of OpenAI's own client do, against the server in argv; ends with 1 at the first thing that is wrong.
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2].replace("/api/v1", "/v1"), apiKey: "none", maxRetries: 0 });
const model = "assistant";
const all = async (stream) => { const parts = []; for await (const part of stream) parts.push(part); return parts; };

// chat completions
assert.ok((await all(client.models.list())).some((one) => one.id === model));
const messages = [{ role: "user", content: "what is 12*(3+4)?" }];
assert.match((await client.chat.completions.create({ model, messages })).choices[0].message.content, /84/);
const chunks = await all(await client.chat.completions.create({ model, messages, stream: true }));
assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");

// responses: a chain, a stream that is repeated, a tool of the client
const first = await client.responses.create({ model, input: "what is 12*(3+4)?" });
assert.match(first.output_text, /84/);
const second = await client.responses.create({ model, input: "hello", previous_response_id: first.id });
assert.equal(second.previous_response_id, first.id);
const stream = client.responses.stream({ model, input: "what is 12*(3+4)?" });
const events = await all(stream);
assert.equal(events.at(-1).type, "response.completed");
const again = await all(await client.responses.retrieve((await stream.finalResponse()).id, { stream: true }));
assert.deepEqual(again.map((event) => event.type), events.map((event) => event.type));
const parameters = { type: "object", properties: { city: { type: "string" } } };
const tools = [{ type: "function", name: "weather", parameters, strict: false }];
const asked = await client.responses.create({ model, input: "call weather city=Rome", tools });
const { call_id } = asked.output.find((item) => item.type === "function_call");
const input = [{ type: "function_call_output", call_id, output: "22 degrees" }];
const answered = await client.responses.create({ model, input, previous_response_id: asked.id, tools });
assert.match(answered.output_text, /22 degrees/);

// conversations
const conversation = await client.conversations.create({ metadata: { of: "a journey" } });
await client.responses.create({ model, input: "hello", conversation: conversation.id });
assert.equal((await all(client.conversations.items.list(conversation.id))).length, 2);
assert.ok((await client.conversations.delete(conversation.id)).deleted);
console.log("every step went well");
