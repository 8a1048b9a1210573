/** What an answer rests on: passages of documents that its tools found, and pages that its provider names. */

import { fill, h } from "./dom.js";
import { link } from "./router.js";

const MOST = 30;

/** Show the sources of `message`, one of `messages`, in `place`. */
export function showSources(place, message, messages) {
  const found = new Map();
  for (const one of [...named(message.content), ...(message.tool_calls?.length ? [] : passages(message, messages))]) found.set(JSON.stringify(one.target ?? one.title), one);
  const sources = [...found.values()].slice(0, MOST);
  fill(place, sources.length > 0 && [h("span.faint", null, "Sources"), h("ol", null, sources.map((one) => h("li", { dir: "auto" }, source(one))))]);
}

function source({ title, target }) {
  if (!target) return h("span", null, title);
  const outside = /^https?:/i.test(target);
  return h("a", outside ? { href: target, target: "_blank", rel: "noopener noreferrer nofollow" } : { href: link(target), "data-go": target }, title);
}

/** The passages that tools found for this answer, after what the person said. */
function passages(message, messages) {
  const end = messages.indexOf(message);
  const start = messages.findLastIndex((one, index) => index < end && one.type === "human");
  const results = messages.slice(start + 1, Math.max(0, end)).filter((one) => one.type === "tool");
  return results.flatMap((one) => list(one.artifact?.citations)).filter((one) => one?.document_id).map((one) => ({
    title: [one.title ?? "Document", one.page && `page ${one.page}`].filter(Boolean).join(", "),
    target: `documents/${encodeURIComponent(one.document_id)}/${Number(one.chunk) || 0}`,
  }));
}

/** The addresses in the annotations of an answer's blocks, by whichever provider. */
function named(content) {
  return list(content).flatMap((block) => [...list(block?.annotations), ...list(block?.citations)]).map((one) => {
    const { url, title, cited_text } = one?.url_citation ?? one ?? {};
    return { title: String(title ?? url ?? cited_text ?? "").slice(0, 200), target: /^https?:\/\//i.test(url ?? "") ? String(url) : null };
  }).filter(({ title }) => title);
}

const list = (value) => (Array.isArray(value) ? value : []);
