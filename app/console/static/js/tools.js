/** Tools of agents, as the API describes them, and their classes: what happens to a call that a crash interrupts. */

import { get } from "./api.js";
import { h } from "./dom.js";

const CLASSES = {
  read_only: ["read only", "Changes nothing: after a crash the call runs again."],
  idempotent: ["idempotent", "After a crash the call runs again with the same key, so that it has one effect."],
  transactional: ["transactional", "Its effect is stored with the step, or not at all: after a crash the call runs again."],
  reconcilable: ["reconcilable", "After a crash the server looks up whether the call happened."],
  unsafe: ["unsafe", "After a crash a person says whether the call happened."],
};

const known = new Map();

/** Load the tools of an assistant once; of one whose tools cannot be read there are none. */
function toolsOf(assistant) {
  if (!known.has(assistant)) {
    const path = `/assistants/${encodeURIComponent(assistant)}/tools`;
    known.set(assistant, get(path).catch(() => (known.delete(assistant), [])));
  }
  return known.get(assistant);
}

/** Return a tool of an assistant; null if it has none of this name: a client's own, or one that is gone. */
export async function findTool(assistant, name) {
  if (!assistant || !name) return null;
  return (await toolsOf(assistant)).find((one) => one.name === name) ?? null;
}

/** Return the tag of a class; null for none. */
export function classTag(name) {
  if (!name) return null;
  const [label, meaning] = CLASSES[name] ?? [name, ""];
  return h(`span.tag.of-${name}`, { title: meaning }, label);
}

/** What a class means, in a sentence. */
export const classMeaning = (name) => CLASSES[name]?.[1] ?? "";
