/** The keyboard's place: when what has the focus goes away, what took its place, or stands next to it, gets the focus. */

const FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex]";
/** Attributes that may take the focus from an element. */
const LOSING = ["hidden", "disabled", "inert", "open"];

const usable = (element) => !element.disabled && !element.closest("[inert]") && element.checkVisibility();
const named = (element) => `${element.tagName} ${element.getAttribute("aria-label") ?? element.textContent.slice(0, 60)}`.replace(/\?$/, "");
const isAfter = (element, other) => other.contains(element) || Boolean(other.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING);

/** Keep the focus inside `root` as long as a person is there by the keyboard. */
export function keepFocus(root) {
  let last = null;
  let planned = false;

  const check = () => {
    planned = false;
    if (!last || document.activeElement !== document.body) return;
    const { element } = last;
    // one that is disabled while its request is under way gets the focus back afterwards
    if (!element.isConnected || !element.checkVisibility()) successor(last)?.focus();
    else if (usable(element)) element.focus({ preventScroll: true });
  };
  document.addEventListener("focusin", ({ target }) => {
    const places = [];
    for (let child = target; child !== root && child.parentElement; child = child.parentElement) {
      places.push({ parent: child.parentElement, next: child.nextElementSibling, previous: child.previousElementSibling });
    }
    last = root.contains(target) ? { element: target, name: named(target), places } : null;
  });
  document.addEventListener("pointerdown", () => (last = null));
  new MutationObserver(() => {
    if (planned || !last) return;
    planned = true;
    // a frame later the browser has taken the focus from what is hidden or disabled
    requestAnimationFrame(() => setTimeout(check));
  }).observe(root, { subtree: true, childList: true, attributes: true, attributeFilter: LOSING });
}

/** What gets the focus: in the nearest place that is left the one of the same name, else what comes next, else what was before. */
function successor({ places, name }) {
  const left = places.filter(({ parent }) => parent.isConnected && parent.checkVisibility()).map(({ parent, next, previous }) => {
    const found = [...parent.querySelectorAll(FOCUSABLE)].filter((one) => one.tabIndex >= 0 && usable(one));
    return {
      found,
      after: next?.isConnected ? found.filter((one) => isAfter(one, next)) : [],
      before: previous?.isConnected ? found.filter((one) => previous.contains(one) || !isAfter(one, previous)) : found,
    };
  });
  const [nearest] = left;
  const same = nearest && [...nearest.after, ...nearest.found].find((one) => named(one) === name);
  return same ?? left.map(({ after }) => after[0]).find(Boolean) ?? left.map(({ before }) => before.at(-1)).find(Boolean);
}
