// Starts the renderer on the document that the page names.
const settings = {
  "render-style": "focused",
  "theme": window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light",
  "load-fonts": "false",
  "regular-font": "system-ui, sans-serif",
  "mono-font": "ui-monospace, Menlo, Consolas, monospace",
  "primary-color": "#1f6feb",
  "show-header": "false",
  "show-method-in-nav-bar": "as-colored-text",
  "use-path-in-nav-bar": "false",
  "sort-tags": "false",
  "schema-style": "table",
  "schema-expand-level": "2",
  "default-schema-tab": "example",
  "response-area-height": "400px",
  "allow-server-selection": "false",
  "persist-auth": "false",
};
const place = document.getElementById("docs");
const view = document.createElement("rapi-doc");
for (const [name, value] of Object.entries(settings)) view.setAttribute(name, value);
view.setAttribute("spec-url", place.dataset.document);
place.replaceWith(view);
