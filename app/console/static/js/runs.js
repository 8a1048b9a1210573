/** Runs as the search over all threads returns them: their times, and their pages. */

import { request, uuid } from "./api.js";

/** Return a page of runs, newest first, and `before` of the next one (null: there is none). */
export async function searchRuns(body) {
  const headers = { "Content-Type": "application/json", "Idempotency-Key": uuid() };
  const answer = await request("/runs/search", { method: "POST", headers, body: JSON.stringify(body) });
  return { runs: await answer.json(), next: answer.headers.get("X-Pagination-Next") };
}

export const isLive = (run) => run.status === "pending" || run.status === "running";

/** The milliseconds that a run waited for a worker; those of one that waits grow. */
export const queuedFor = (run) => between(run.created_at, run.started_at ?? run.ended_at);

/** The milliseconds from its start to its end, or to now. */
export const tookFor = (run) => (run.started_at ? between(run.started_at, run.ended_at) : NaN);

function between(start, end) {
  return Math.max(0, (end ? Date.parse(end) : Date.now()) - Date.parse(start));
}

/** Return a run of a thread; null if it is not there. */
export async function findRun(threadId, runId) {
  for (let before = null; ; ) {
    const { runs, next } = await searchRuns({ thread_id: threadId, limit: 100, ...(before && { before }) });
    const found = runs.find((run) => run.run_id === runId);
    if (found || !next) return found ?? null;
    before = next;
  }
}
