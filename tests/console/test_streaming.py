"""A text that grows is drawn as it is drawn at once, and what is complete in it is not drawn again."""

import pytest
from playwright.sync_api import Browser

from tests.console.conftest import watching
from tests.journeys.conftest import Served

pytestmark = pytest.mark.timeout(240)

TEXTS = {
    "code": "```python\n"
    + "".join(f"def f{n}(a):  # comment\n    return {n}\n\n" for n in range(200))
    + "```\n\nDone.",
    "one line of code": "```\n" + "x = 1; " * 2000 + "\n```\n",
    "list": "".join(f"- item {n} with **bold** words and `code`\n  - below {n}\n" for n in range(60)) + "\nDone.",
    "list that becomes loose": "1. one\n2. two\n3. three\n\n4. four\n\n   more of four\n5. five\n",
    "tasks": "- [ ] one\n- [x] two\n- three\n",
    "table": "| a | b |\n|---|--:|\n" + "".join(f"| {n} | `{n}` |\n" for n in range(60)) + "\nDone.",
    "mixed": '# Title\n\nWords [one](https://a.example/ "t")\n\n> quoted\n\n* a\n* b\n\n***\n\n| x |\n|---|\n| 1 |\n',
}

GROW = r"""
async ([text, size]) => {
  const source = document.querySelector("script[type=module]").src.replace("app.js", "markdown.js");
  const { Markdown } = await import(source);
  const plain = (element) => {
    const copy = element.cloneNode(true);
    for (const part of copy.querySelectorAll(".code-part, [class^=hl-]")) part.replaceWith(...part.childNodes);
    copy.normalize();
    return copy.innerHTML.replace(/>\s+</g, "><");
  };
  const grown = new Markdown();
  for (let end = size; end < text.length + size; end += size) {
    grown.show(text.slice(0, end));
    const whole = new Markdown();
    whole.show(text.slice(0, end));
    const [is, wanted] = [plain(grown.element), plain(whole.element)];
    if (is !== wanted) return `different at ${end}: ${is.slice(-300)} instead of ${wanted.slice(-300)}`;
  }
  return "";
}
"""

KEPT = """
async ([text, selector]) => {
  const source = document.querySelector("script[type=module]").src.replace("app.js", "markdown.js");
  const { Markdown } = await import(source);
  const grown = new Markdown();
  const seen = new Set();
  const half = text.length / 2;
  for (let end = 40; end < text.length - 20; end += 40) {
    grown.show(text.slice(0, end));
    if (end > half) seen.add(grown.element.querySelector(selector));
  }
  return seen.size;
}
"""


SHOWN = """
async ([text]) => {
  const source = document.querySelector("script[type=module]").src.replace("app.js", "markdown.js");
  const shown = new (await import(source)).Markdown();
  shown.show(text);
  const all = (selector, read) => [...shown.element.querySelectorAll(selector)].map(read);
  return [all("input", (one) => one.checked), all("th", (one) => one.align), all("ol", (one) => one.start)];
}
"""


def test_tasks_alignment_and_the_first_number_of_a_list_are_kept(browser: Browser, console: Served) -> None:
    text = "- [ ] one\n- [x] two\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n3. three\n4. four\n"
    with watching(browser, console) as watched:
        page = watched.open("console/health")
        page.wait_for_selector("main h1")
        assert page.evaluate(SHOWN, [text]) == [[False, True], ["", "right"], [3]]


def test_a_text_that_grows_is_drawn_as_at_once(browser: Browser, console: Served) -> None:
    with watching(browser, console) as watched:
        page = watched.open("console/health")
        page.wait_for_selector("main h1")
        for name, text in TEXTS.items():
            size = 7 if len(text) < 1000 else 211
            assert page.evaluate(GROW, [text, size]) == "", name
        for name, selector in {"code": ".code-part", "list": "li", "table": "tbody tr"}.items():
            assert page.evaluate(KEPT, [TEXTS[name], selector]) == 1, name
