/** Forms made of a JSON Schema, for answers and inputs; what a form cannot show is written as JSON. */

import { button, h, problemPlace } from "./dom.js";

/** Return a form for `schema`; `send(value)` gets what was filled in. */
export function schemaForm(schema, send, label = "Answer") {
  const root = resolve(schema, schema);
  const place = problemPlace();
  if (root.type === "boolean") {
    return h("div.buttons", null, button("Yes", () => send(true), { kind: "primary" }), button("No", () => send(false)));
  }
  if (root.enum?.every((one) => typeof one !== "object")) {
    return h("div.buttons", null, root.enum.map((one) => button(String(one), () => send(one))));
  }
  const field = fieldOf(root, schema, label);
  const form = h("form.schema-form", { novalidate: true }, field.element, place,
    h("div.buttons", null, h("button.button.primary", { type: "submit" }, label)));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    place.show(null);
    try {
      send(field.read());
    } catch (error) {
      place.show(error);
    }
  });
  return form;
}

function resolve(schema, root) {
  const name = schema.$ref?.match(/^#\/(?:\$defs|definitions)\/(.+)$/)?.[1];
  return name ? (root.$defs ?? root.definitions)?.[name] ?? schema : schema;
}

const labelled = (title, control, note) => h("label.field", null, h("span", null, title), control, note && h("small.faint", null, note));

/** Return `{element, read}` for a schema: a control, or a group of them for an object with properties. */
function fieldOf(given, root, title) {
  const schema = resolve(given, root);
  const label = schema.title ?? title;
  const note = schema.description;
  if (schema.type === "object" && schema.properties) {
    const required = new Set(schema.required ?? []);
    const fields = Object.entries(schema.properties).map(([name, one]) => [name, fieldOf(one, root, name)]);
    const read = () => Object.fromEntries(fields.map(([name, field]) => [name, field.read()])
      .filter(([name, value]) => required.has(name) || (value !== "" && value !== undefined)));
    return { element: h("fieldset", null, h("legend", null, label), note && h("p.faint", null, note), fields.map(([, field]) => field.element)), read };
  }
  if (schema.enum?.every((one) => typeof one !== "object")) {
    const select = h("select", null, schema.enum.map((one, index) => h("option", { value: String(index) }, String(one))));
    if (schema.default !== undefined) select.selectedIndex = Math.max(0, schema.enum.indexOf(schema.default));
    return { element: labelled(label, select, note), read: () => schema.enum[select.selectedIndex] };
  }
  if (schema.type === "boolean") {
    const box = h("input", { type: "checkbox", checked: schema.default === true });
    return { element: h("label.check", null, box, label), read: () => box.checked };
  }
  if (schema.type === "number" || schema.type === "integer") {
    const input = h("input", { type: "number", step: schema.type === "integer" ? "1" : "any", min: schema.minimum, max: schema.maximum, value: schema.default ?? "" });
    return { element: labelled(label, input, note), read: () => (input.value === "" ? undefined : Number(input.value)) };
  }
  if (schema.type === "string") {
    const input = h("textarea", { rows: "1", dir: "auto", value: schema.default ?? "" });
    return { element: labelled(label, input, note), read: () => input.value };
  }
  const input = h("textarea.code-input", { rows: "4", spellcheck: "false", value: schema.default === undefined ? "" : JSON.stringify(schema.default, null, 2) });
  const read = () => {
    try {
      return input.value.trim() ? JSON.parse(input.value) : undefined;
    } catch (error) {
      throw new Error(`${label} is not JSON: ${error.message}`);
    }
  };
  return { element: labelled(`${label} (JSON)`, input, note), read };
}
