/** Forms of questions: approvals, reviews of ambiguous calls, typed answers, and anything else that an agent asks. */

import { add, button, fill, h, icon, pretty, problemPlace } from "./dom.js";
import { schemaForm } from "./forms.js";
import { classTag } from "./tools.js";

const REVIEW = {
  retry: ["Run it again", "The call may then happen twice."],
  done: ["It was done", "Give the model the result."],
  failed: ["It failed", "Tell the model why."],
  abort: ["End the run", "Nothing more happens."],
};

/** Return a card for `question`; `answer(value)` sends an answer and may reject. */
export function questionCard(question, answer) {
  const value = question.value;
  const problem = problemPlace();
  const send = async (given) => {
    problem.show(null);
    card.setAttribute("aria-busy", "true");
    card.inert = true;
    try {
      await answer(given);
    } catch (error) {
      problem.show(error);
      card.inert = false;
    } finally {
      card.removeAttribute("aria-busy");
    }
  };
  const card = h("div.question", { role: "group", "aria-label": "Question", "data-question": question.id });
  const earlier = value?.problem && h("p.problem", null, `The last answer did not count: ${value.problem}`);
  if (value?.type === "tool_review") add(card, review(value, send));
  else if (Array.isArray(value?.action_requests)) add(card, approval(value, send));
  else if (isAddress(value?.url) && Array.isArray(value.actions)) add(card, address(value, send));
  else add(card, anything(question, send));
  return add(card, earlier, problem);
}

function titled(glyph, title, note) {
  return [h("h2", null, icon(glyph), title), note && h("p.faint", null, note)];
}

/** LangChain's human-in-the-loop form: one decision for each requested action, all sent together. */
function approval(value, send) {
  const decisions = value.action_requests.map(() => null);
  const parts = value.action_requests.map((action, index) => {
    const allowed = value.review_configs?.find((one) => one.action_name === action.name)?.allowed_decisions
      ?? ["approve", "edit", "reject"];
    return actionForm(action, allowed, value.tool_class, (decision) => {
      decisions[index] = decision;
      if (decisions.every(Boolean)) send({ decisions });
      else parts[index].replaceWith(h("p.faint", null, `${action.name}: ${decision.type}`));
    });
  });
  return [titled("tool", value.action_requests.length > 1 ? "Approve these calls?" : "Approve this call?"), parts];
}

function actionForm(action, allowed, toolClass, decide) {
  const place = problemPlace();
  const editor = h("textarea.code-input", { rows: String(Math.min(14, pretty(action.args).split("\n").length + 1)),
    "aria-label": `Arguments of ${action.name}`, spellcheck: "false", value: pretty(action.args) });
  const before = editor.value;
  const reason = h("input", { type: "text", "aria-label": "Reason or result", placeholder: "Reason, or the result to give" });
  editor.readOnly = !allowed.includes("edit");
  const approve = () => {
    if (editor.value === before) return decide({ type: "approve" });
    try {
      const args = JSON.parse(editor.value);
      if (typeof args !== "object" || args === null || Array.isArray(args)) throw new Error("The arguments must be a JSON object.");
      decide({ type: "edit", edited_action: { name: action.name, args } });
    } catch (error) {
      place.show(error);
    }
  };
  const label = h("span", null, "Approve");
  editor.addEventListener("input", () => (label.textContent = editor.value === before ? "Approve" : "Approve with these arguments"));
  return h("div.action", null,
    h("p", null, h("b", null, action.name), classTag(toolClass)),
    action.description && !action.description.startsWith("Tool execution requires approval") && h("p.plain", null, action.description),
    editor, place,
    h("div.buttons", null,
      h("button.button.primary", { type: "button", onclick: approve }, icon("check", 16), label),
      allowed.includes("reject") && button("Reject", () => decide({ type: "reject", message: reason.value }), { kind: "danger" }),
      allowed.includes("respond") && button("Give this result", () => decide({ type: "respond", message: reason.value })),
      (allowed.includes("reject") || allowed.includes("respond")) && reason));
}

function review(value, send) {
  const result = h("textarea", { rows: "2", "aria-label": "Result or reason", placeholder: "Result, or the reason of the failure" });
  return [
    titled("warn", "Did this call happen?", "The process ended while the call ran: only a person can find out."),
    h("p", null, h("b", null, value.tool), classTag(value.tool_class)),
    h("pre", { tabindex: "0" }, pretty(value.args)),
    value.idempotency_key && h("p.faint", null, "Idempotency key: ", h("code", null, value.idempotency_key)),
    result,
    h("div.buttons", null, (value.actions ?? Object.keys(REVIEW)).map((action) => {
      const [label, note] = REVIEW[action] ?? [action, ""];
      const given = () => send(result.value ? { action, result: result.value } : { action });
      return button(label, given, { title: note, kind: action === "abort" ? "danger" : "" });
    })),
  ];
}

const isAddress = (text) => /^https?:\/\//i.test(text ?? "") && URL.canParse(text);

const WHAT_WAS_DONE = { accept: ["I have done so", "primary"], decline: ["I will not", "danger"], cancel: ["Not now", ""] };

/** An address that a person opens to sign in, or to answer there. */
function address(value, send) {
  const signsIn = value.type === "auth_required";
  return [
    titled("chat", signsIn ? `Sign in to ${value.server}` : String(value.message ?? "Open this address"), `For the tool ${value.tool}.`),
    h("p", null, h("a", { href: value.url, target: "_blank", rel: "noopener noreferrer" }, `Open ${new URL(value.url).host}`)),
    h("div.buttons", null, value.actions.map((action) => {
      const [label, kind] = WHAT_WAS_DONE[action] ?? [action, ""];
      return button(label, () => send({ action }), { kind });
    })),
  ];
}

function anything(question, send) {
  const { value } = question;
  const schema = question.response_schema ?? value?.response_schema;
  const asked = typeof value === "string" ? value : value?.question ?? value?.message ?? value?.prompt;
  const choices = value?.actions ?? value?.options ?? value?.choices;
  const rest = value && typeof value === "object" ? Object.fromEntries(Object.entries(value)
    .filter(([name]) => !["question", "message", "prompt", "actions", "options", "choices", "problem", "response_schema"].includes(name))) : {};
  const parts = [
    titled("chat", asked ? String(asked) : "The agent asks"),
    Object.keys(rest).length > 0 && details(rest),
    !asked && typeof value !== "object" && value !== undefined && h("pre", { tabindex: "0" }, pretty(value)),
  ];
  if (schema) return [parts, schemaForm(schema, send)];
  if (Array.isArray(choices) && choices.every((one) => typeof one === "string")) {
    return [parts, h("div.buttons", null, choices.map((one) => button(one, () => send(value?.actions ? { action: one } : one)))), freeForm(send)];
  }
  return [parts, freeForm(send)];
}

/** Show the members of an object: short ones in lines, others as JSON. */
export function details(object) {
  return h("dl.details", null, Object.entries(object).map(([name, value]) => [
    h("dt", null, name),
    h("dd", null, typeof value === "object" && value !== null ? h("pre", { tabindex: "0" }, pretty(value)) : String(value)),
  ]));
}

/** Any answer: text as it stands, or JSON if it is chosen. */
function freeForm(send) {
  const place = problemPlace();
  const text = h("textarea", { rows: "2", "aria-label": "Answer", placeholder: "Your answer", dir: "auto" });
  const json = h("input", { type: "checkbox" });
  const submit = () => {
    try {
      send(json.checked ? JSON.parse(text.value) : text.value);
    } catch (error) {
      place.show(`This is not JSON: ${error.message}`);
    }
  };
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit();
  });
  return h("div.free", null, text, place, h("div.buttons", null, button("Answer", submit, { kind: "primary" }), h("label.check", null, json, "as JSON")));
}

/** Fill `place` with the cards of all `questions`. */
export function showQuestions(place, questions, answer) {
  const known = new Map([...place.children].map((child) => [child.dataset.question, child]));
  if (questions.length === known.size && questions.every((one) => known.has(one.id))) return;
  fill(place, questions.map((one) => known.get(one.id) ?? questionCard(one, (value) => answer(one, value))));
}
