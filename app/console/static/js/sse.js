/** Server-sent events by fetch, which can send a key: resumed by Last-Event-ID without gap or repeat. */

import { ApiError, needKey, request, serverIsBack } from "./api.js";

const SILENCE_MS = 20_000;

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
      if (error instanceof ApiError && error.status === 401) await needKey(error.detail);
      else if (error instanceof ApiError && error.status < 500 && error.status !== 429) throw error;
      if (error.last) last = error.last;
    }
    if (signal.aborted) return;
    if (failures > 0) await serverIsBack();
    await new Promise((done) => setTimeout(done, 200));
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
