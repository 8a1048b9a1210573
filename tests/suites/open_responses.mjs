// Journeys of the AI SDK's provider of Open Responses. Arguments: the server's address, the folder of the packages.
// Prints one JSON line for each check: {"name", "ok", "detail"?}.

import { strict as assert } from "node:assert";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [base, modules] = process.argv.slice(2);
const require = createRequire(`${modules}/package.json`);
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { generateText, streamText, tool, jsonSchema, isStepCount } = await load("ai");
const { createOpenResponses } = await load("@ai-sdk/open-responses");

const SUM = "what is 12*(3+4)?";
const provider = createOpenResponses({ name: "agents", url: `${base}/v1/responses`, apiKey: "none" });
const model = provider("assistant");

async function check(name, journey) {
  try {
    await journey();
    console.log(JSON.stringify({ name, ok: true }));
  } catch (error) {
    console.log(JSON.stringify({ name, ok: false, detail: String(error?.stack ?? error) }));
  }
}

await check("generates a text", async () => {
  const { text, usage, finishReason } = await generateText({ model, prompt: SUM });
  assert.match(text, /84/);
  assert.ok(usage.totalTokens > 0);
  assert.equal(finishReason, "stop");
});

await check("streams a text", async () => {
  const result = streamText({ model, prompt: SUM });
  let text = "";
  for await (const chunk of result.textStream) text += chunk;
  assert.match(text, /84/);
  assert.equal(await result.finishReason, "stop");
});

await check("calls a tool of its own and goes on", async () => {
  const weather = tool({
    description: "The weather in a city.",
    inputSchema: jsonSchema({ type: "object", properties: { city: { type: "string" } }, required: ["city"] }),
    execute: async ({ city }) => `sunny in ${city}`,
  });
  const { text, steps } = await generateText({
    model,
    prompt: "call weather city=Rome",
    tools: { weather },
    stopWhen: isStepCount(3),
  });
  assert.equal(steps.length, 2);
  assert.match(text, /sunny in Rome/);
});

await check("keeps a conversation by its messages", async () => {
  const { text } = await generateText({
    model,
    system: "Be kind.",
    messages: [
      { role: "user", content: "hello" },
      { role: "assistant", content: "Hello!" },
      { role: "user", content: SUM },
    ],
  });
  assert.match(text, /84/);
});

await check("sends an image", async () => {
  const image = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
  const content = [
    { type: "text", text: SUM },
    { type: "file", mediaType: "image/png", data: image },
  ];
  const { text } = await generateText({ model, messages: [{ role: "user", content }] });
  assert.match(text, /84/);
});

await check("is refused an unknown model", async () => {
  await assert.rejects(generateText({ model: provider("nothing"), prompt: "x", maxRetries: 0 }), /does not exist/);
});
