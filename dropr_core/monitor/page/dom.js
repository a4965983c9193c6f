// Elements and numbers for people. Whatever a node tells becomes text here, never markup: nothing in these files sets
// HTML, and the page's policy (require-trusted-types-for) would not let it.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((one) => one !== null && one !== undefined));
  return element;
}

/** An element of HTML: h("p", {class: "x"}, "text", other). */
export const h = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);

/** An element of SVG. */
export const s = (name, attributes, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

/** Set attributes that may change; null removes one. */
export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
  }
}

/** Set the text of an element, without touching it if it is the same. */
export function say(element, text) {
  const shown = String(text);
  if (element.textContent !== shown) element.textContent = shown;
}

/** Make the children of `parent` those of `items`, each kept as long as its key is there: focus and hover stay. */
export function keyed(parent, items, key, make, update) {
  const known = parent.keyedChildren || (parent.keyedChildren = new Map());
  const wanted = new Set(items.map(key));
  for (const [name, child] of known) {
    if (!wanted.has(name)) {
      child.element.remove();
      known.delete(name);
    }
  }
  let before = null;
  for (const item of items) {
    let child = known.get(key(item));
    if (!child) known.set(key(item), (child = make(item)));
    const place = before ? before.nextSibling : parent.firstChild;
    if (child.element !== place) parent.insertBefore(child.element, place);
    update(child, item);
    before = child.element;
  }
}

// ── numbers ──────────────────────────────────────────────────────────────────────────────────────

/** 12s, 3m 20s, 5h 2m, 2d 4h. */
export function age(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const left = Math.max(0, Math.floor(seconds));
  if (left < 1) return "now";
  if (left < 60) return `${left}s`;
  for (const [unit, length, below, step] of [["d", 86400, "h", 3600], ["h", 3600, "m", 60], ["m", 60, "s", 1]]) {
    if (left >= length) {
      const rest = Math.floor((left % length) / step);
      return `${Math.floor(left / length)}${unit}${rest ? ` ${rest}${below}` : ""}`;
    }
  }
  return `${left}s`;
}

/** 17 B, 1.5 KiB. */
export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let shown = bytes;
  while (shown >= 1024 && units.length > 1) {
    shown /= 1024;
    units.shift();
  }
  return `${units[0] === "B" || shown >= 100 ? Math.round(shown) : shown.toFixed(1)} ${units[0]}`;
}

/** 950, 12.3k, 4.5M. */
export function short(number) {
  if (number < 10000) return String(number);
  if (number < 1e6) return `${(number / 1e3).toFixed(number < 1e5 ? 1 : 0)}k`;
  return `${(number / 1e6).toFixed(number < 1e8 ? 1 : 0)}M`;
}

/** Of something a second. */
export function rate(number) {
  if (number === null || number === undefined) return "–";
  if (number === 0) return "0/s";
  return number < 10 ? `${number.toFixed(1)}/s` : `${short(Math.round(number))}/s`;
}

/** 1 message, 2 messages. */
export const count = (number, one, many) => `${short(number)} ${number === 1 ? one : many || `${one}s`}`;

/** A moment of the wall clock. */
export const moment = (seconds) => (seconds ? new Date(seconds * 1000).toLocaleString() : "–");

/** How much room an id takes in a list; whole ids are in the title. */
export const brief = (id) => id.slice(0, 13);
