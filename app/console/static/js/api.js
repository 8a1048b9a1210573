/** The public API, below the address from which this page came. */

export const ROOT = new URL(document.documentElement.dataset.root, location.href);

const KEY = "agent-service.key";
const RETRY_MS = [500, 1000, 2000, 3000, 5000];
/** How often a request is sent at most that the server answers with 503: then its reason is shown. */
const MAX_TRIES = 4;

/** Events: "lost" (the server does not answer), "back" (it answers again), "key" (a key is needed). */
export const signals = new EventTarget();

let lost = null;

/** An error that the API reported (RFC 9457), or that the network did (status 0). `retryAfter` is in seconds. */
export class ApiError extends Error {
  constructor(status, problem, retryAfter = 0) {
    super(problem.detail ?? problem.title ?? `The server answered ${status}.`);
    this.status = status;
    this.retryAfter = retryAfter;
    this.problem = problem;
    const places = (problem.errors ?? []).map((one) => `${one.pointer ?? one.parameter}: ${one.detail}`);
    this.detail = [this.message, ...places.filter((place) => !this.message.includes(place))].join(" ");
  }
}

export const storedKey = () => sessionStorage.getItem(KEY) ?? "";

/** Keep the key for this tab; the empty one forgets it. */
export function keepKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

export const address = (path) => new URL(`api/v1${path}`, ROOT);

/** Wait; `signal` ends it early. */
export const sleep = (ms, signal) => new Promise((resolve) => {
  const done = () => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", done);
    resolve();
  };
  const timer = setTimeout(done, ms);
  signal?.addEventListener("abort", done);
});

/** Resolve when the server answers again; while it does not, the page shows so. */
export function serverIsBack() {
  lost ??= (async () => {
    signals.dispatchEvent(new Event("lost"));
    for (let attempt = 0; ; attempt++) {
      await sleep(RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)]);
      const answer = await fetch(address("/health/ready")).catch(() => null);
      if (answer?.ok) break;
    }
    lost = null;
    signals.dispatchEvent(new Event("back"));
  })();
  return lost;
}

let asking = null;
let renew = () => false;

/** Let `act` get a new token where one was refused; it resolves to whether it did. */
export const renewBy = (act) => (renew = act);

/** Ask for a key and resolve when one was given; all requests that wait share the question. */
function needKey(detail) {
  asking ??= new Promise((given) => {
    signals.dispatchEvent(new CustomEvent("key", { detail: { detail, given } }));
  }).finally(() => (asking = null));
  return asking;
}

/** Send a request as `fetch` does, and report by `onSent` which part of its body was sent, from 0 to 1. */
function watchedFetch(url, { method, headers, body, signal, onSent }) {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open(method, url);
    for (const [name, value] of Object.entries(headers)) sending.setRequestHeader(name, value);
    sending.upload.addEventListener("progress", ({ loaded, total }) => total && onSent(loaded / total));
    sending.addEventListener("load", () => {
      const retryAfter = sending.getResponseHeader("Retry-After");
      resolve(new Response(sending.response || null, { status: sending.status, headers: retryAfter ? { "Retry-After": retryAfter } : {} }));
    });
    sending.addEventListener("error", () => reject(new TypeError("The request got no answer.")));
    sending.addEventListener("abort", () => reject(signal.reason));
    signal?.addEventListener("abort", () => sending.abort(), { once: true });
    sending.send(body);
  });
}

/**
 * Send a request and return its response. A request that got no answer is sent again once the server is back: reads
 * as they are, writes with the same Idempotency-Key, so that they have one effect. `onSent`: see `watchedFetch`.
 * `onLost` is called each time that the request waits for the server.
 */
export async function request(path, { method = "GET", headers = {}, signal, onSent, onLost, ...rest } = {}) {
  const sent = { ...headers };
  const repeatable = method !== "POST" || "Idempotency-Key" in sent;
  for (let tries = 1; ; ) {
    if (storedKey()) sent.Authorization = `Bearer ${storedKey()}`;
    let answer;
    try {
      const given = { method, headers: sent, signal, ...rest };
      answer = await (onSent ? watchedFetch(address(path), { ...given, onSent }) : fetch(address(path), given));
    } catch (error) {
      if (signal?.aborted) throw error;
      const back = serverIsBack();
      if (!repeatable) throw new ApiError(0, { detail: "The server does not answer. Try again when it is back." });
      onLost?.();
      await back;
      continue;
    }
    if (answer.status === 401) {
      const problem = await answer.json().catch(() => ({}));
      if (!(await renew())) await needKey(storedKey() ? problem.detail : "");
      continue;
    }
    if (answer.ok) return answer;
    const retryAfter = Math.min(10, Number(answer.headers.get("Retry-After")) || 0);
    if (answer.status !== 503 || !retryAfter || !repeatable || tries++ >= MAX_TRIES) {
      throw new ApiError(answer.status, await answer.json().catch(() => ({})), retryAfter);
    }
    await sleep(retryAfter * 1000, signal);
  }
}

/** Send JSON and return the JSON of the answer. `once`: with an Idempotency-Key, for what creates. */
export async function call(method, path, body, { once = false, signal } = {}) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (once) headers["Idempotency-Key"] = uuid();
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const answer = await request(path, { method, headers, body: sent, signal });
  const text = await answer.text();
  return text ? JSON.parse(text) : null;
}

export const get = (path, options) => call("GET", path, undefined, options);
export const post = (path, body, options) => call("POST", path, body, options);
/** A POST that only reads: sent again like a GET when the server was away. */
export const query = (path, body, options) => call("POST", path, body, { ...options, once: true });

/** Return a random UUID; the browser's own function exists on secure origins alone. */
export function uuid() {
  const random = crypto.getRandomValues(new Uint8Array(16));
  random[6] = (random[6] & 0x0f) | 0x40;
  random[8] = (random[8] & 0x3f) | 0x80;
  const hex = [...random].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** Return all pages of a search that counts with limit and offset, up to `most` entries. */
export async function all(path, body, most = 1000) {
  const found = [];
  while (found.length < most) {
    const page = await query(path, { ...body, limit: 100, offset: found.length });
    found.push(...page);
    if (page.length < 100) break;
  }
  return found;
}
