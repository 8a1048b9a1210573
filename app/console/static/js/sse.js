/** Server-sent events by fetch, which can send a key: resumed by Last-Event-ID without gap or repeat. */

import { ApiError, request, serverIsBack, sleep } from "./api.js";

const SILENCE_MS = 20_000;
/** How long to wait where too many streams are open (429), if the server does not say. */
const BUSY_S = 5;

/**
 * Follow a stream until `signal` aborts it: call `onEvents` with lists of `{event, data, id}` as they arrive. A broken
 * stream resumes after its last event; `onOpen()` is called when it is open. Rejects if the stream has expired
 * (410) or refused.
 */
export async function follow(path, { onEvents, signal, after = "", onOpen = () => {} }) {
  let last = after;
  for (let failures = 0; !signal.aborted; failures++) {
    try {
      const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
      const answer = await request(path, { headers, signal });
      failures = 0;
      onOpen();
      last = await read(answer.body, onEvents, signal, last);
    } catch (error) {
      if (signal.aborted) return;
      if (error.last) last = error.last;
      if (error instanceof ApiError && error.status === 429) {
        await sleep((error.retryAfter || BUSY_S) * 1000, signal);
        continue;
      }
      if (error instanceof ApiError && error.status < 500) throw error;
    }
    if (signal.aborted) return;
    if (failures > 0) await serverIsBack();
    await sleep(200, signal);
  }
}

/** Read one response to its end and return the id of its last event; one that stays silent too long is given up. */
async function read(body, onEvents, signal, last) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let seen = Date.now();
  const watchdog = setInterval(() => Date.now() - seen > SILENCE_MS && reader.cancel().catch(() => {}), 5000);
  let rest = "";
  let current = { event: "message", data: "", id: last };
  try {
    for (;;) {
      const part = await reader.read();
      if (part.done) return last;
      seen = Date.now();
      const lines = (rest + decoder.decode(part.value, { stream: true })).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      const events = [];
      for (const line of lines) {
        if (line === "") {
          if (current.data) {
            events.push(current);
            last = current.id;
          }
          current = { event: "message", data: "", id: last };
        } else if (line.startsWith("data: ")) current.data += (current.data && "\n") + line.slice(6);
        else if (line.startsWith("event: ")) current.event = line.slice(7);
        else if (line.startsWith("id: ")) current.id = line.slice(4);
      }
      if (events.length && !signal.aborted) onEvents(events);
    }
  } catch (error) {
    throw Object.assign(error, { last });
  } finally {
    clearInterval(watchdog);
  }
}
