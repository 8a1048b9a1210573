/** A small highlighter: comments, strings, numbers and keywords of the languages that agents write most. */

const WORDS = {
  c: "if else for while return int long double float char void struct const static class public private new delete this switch case break continue namespace using template bool true false nullptr auto enum",
  python: "def class return if elif else for while in not and or is None True False import from as with try except finally raise async await lambda yield pass break continue global nonlocal match case assert del self",
  js: "function const let var return if else for while of in new class extends import export from default async await try catch finally throw typeof instanceof null undefined true false this switch case break continue yield interface type enum implements readonly",
  sql: "select from where and or not insert into values update set delete create table index alter drop join left right inner outer on group by order limit offset having union all distinct as null primary key references with case when then else end returning",
  sh: "if then else fi for in do done while case esac function return export local echo cd sudo exit",
  go: "func package import return if else for range var const type struct interface map chan go defer select switch case default nil true false",
  rust: "fn let mut pub struct enum impl trait use mod match if else for while loop return self Self async await move ref where true false Some None Ok Err",
  json: "true false null",
};
const NAMES = {
  py: "python", javascript: "js", ts: "js", typescript: "js", jsx: "js", tsx: "js", bash: "sh", shell: "sh", console: "sh",
  yaml: "sh", toml: "sh", yml: "sh", java: "c", cpp: "c", "c++": "c", csharp: "c", cs: "c", kotlin: "c", swift: "c", php: "js",
  rb: "python", ruby: "python", rs: "rust", golang: "go", jsonc: "json",
};
const HASH = new Set(["python", "sh"]);
const MAX = 50_000;
const sets = {};

/** Return the nodes of `text`: spans for what is highlighted, texts for the rest. */
export function highlight(text, language) {
  const kind = NAMES[language.toLowerCase()] ?? language.toLowerCase();
  if (!WORDS[kind] || text.length > MAX) return [text];
  sets[kind] ??= new Set(WORDS[kind].split(" "));
  const comment = HASH.has(kind) ? "#[^\\n]*" : kind === "sql" ? "--[^\\n]*" : "\\/\\/[^\\n]*|\\/\\*[^]*?(?:\\*\\/|$)";
  const string = '"""[^]*?(?:"""|$)|"(?:\\\\.|[^"\\\\\\n])*"?|\'(?:\\\\.|[^\'\\\\\\n])*\'?|`(?:\\\\.|[^`\\\\])*`?';
  const pattern = new RegExp(`(${comment})|(${string})|\\b(\\d[\\w.]*)\\b|([A-Za-z_][\\w]*)`, "g");
  const nodes = [];
  let at = 0;
  for (const match of text.matchAll(pattern)) {
    const word = kind === "sql" ? match[4]?.toLowerCase() : match[4];
    const name = match[1] ? "comment" : match[2] ? "string" : match[3] ? "number" : sets[kind].has(word) ? "keyword" : "";
    if (!name) continue;
    if (match.index > at) nodes.push(text.slice(at, match.index));
    const span = document.createElement("span");
    span.className = `hl-${name}`;
    span.textContent = match[0];
    nodes.push(span);
    at = match.index + match[0].length;
  }
  nodes.push(text.slice(at));
  return nodes;
}
