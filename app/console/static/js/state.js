/** What all pages share: the agents, the chosen one, the newest threads, and the count of open questions. */

import { all, query } from "./api.js";

const CHOSEN = "agent-service.agent";
/** Threads that the side bar lists. */
export const SHOWN = 40;

export const changes = new EventTarget();

let known = [];
let threads = [];
let waiting = 0;

export const agents = () => known;
export const recentThreads = () => threads;
export const waitingThreads = () => waiting;

/** Load the assistants; the built-in examples come last. */
export async function loadAgents() {
  const found = await all("/assistants/search", { sort_by: "name", sort_order: "asc" });
  const example = (one) => (["echo", "stream100"].includes(one.graph_id) ? 1 : 0);
  known = found.sort((a, b) => example(a) - example(b) || b.created_at.localeCompare(a.created_at) || a.name.localeCompare(b.name));
  known.sort((a, b) => example(a) - example(b) || Number(b.graph_id === "assistant") - Number(a.graph_id === "assistant"));
}

export function chosenAgent() {
  const kept = localStorage.getItem(CHOSEN);
  return known.find((one) => one.assistant_id === kept)?.assistant_id ?? known[0]?.assistant_id ?? "";
}

export function chooseAgent(id) {
  localStorage.setItem(CHOSEN, id);
}

export const agentName = (id) => known.find((one) => one.assistant_id === id || one.graph_id === id)?.name ?? id ?? "";

/** The internal agent that ingests documents. */
export const INGESTION = "_ingest";

/** Return the name of an agent as people read it, by the name that runs and usage have. */
export const shownAgent = (name) => (name === INGESTION ? "document ingestion" : name);

/** Return the name of a run's agent; that of the ingestion of documents is not listed. */
export const agentOf = (run) => (run.metadata?.graph_id === INGESTION ? shownAgent(INGESTION) : agentName(run.assistant_id));

/** The first words of a thread, its title in lists. */
export function titleOf(thread) {
  const first = thread.extracted?.title;
  const text = typeof first === "string" ? first : Array.isArray(first) ? first.map((block) => block?.text ?? "").join(" ") : "";
  return thread.metadata?.title || text.trim().slice(0, 120) || agentName(thread.metadata?.graph_id) || "New thread";
}

export const THREAD_FIELDS = {
  select: ["thread_id", "metadata", "status", "updated_at", "interrupts"],
  extract: { title: "values.messages[0].content" },
};

let timer = 0;

/** Read the newest threads again, soon: several calls are one. */
export function refreshThreads() {
  clearTimeout(timer);
  timer = setTimeout(() => loadThreads().catch(() => {}), 150);
}

let reading = null;

export async function loadThreads() {
  const turn = (reading = Symbol("threads"));
  const [newest, open] = await Promise.all([
    query("/threads/search", { limit: SHOWN, sort_by: "updated_at", sort_order: "desc", ...THREAD_FIELDS }),
    query("/threads/count", { status: "interrupted" }),
  ]);
  if (turn !== reading) return;
  threads = newest;
  waiting = open;
  changes.dispatchEvent(new Event("threads"));
}
