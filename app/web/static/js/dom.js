// Small helpers around the DOM.

const SVG = "http://www.w3.org/2000/svg";

/**
 * The one element that `selector` finds; its absence is a defect of the template.
 * @template {Element} T
 * @param {ParentNode} root
 * @param {string} selector
 * @param {new (...args: any[]) => T} [type]
 * @returns {T}
 */
export function one(root, selector, type) {
  const found = root.querySelector(selector);
  if (!found || (type && !(found instanceof type))) throw new Error(`template lacks ${selector}`);
  return /** @type {T} */ (found);
}

/**
 * The content of a <template>, ready to be filled.
 * @param {string} id
 * @returns {DocumentFragment}
 */
export function stamp(id) {
  const template = document.getElementById(id);
  if (!(template instanceof HTMLTemplateElement)) throw new Error(`no template ${id}`);
  return /** @type {DocumentFragment} */ (template.content.cloneNode(true));
}

/**
 * An element with a text. Text only: nothing of a file's name is ever read as markup.
 * @param {string} tag
 * @param {string} text
 * @returns {HTMLElement}
 */
export function el(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}

/**
 * @param {Element} list
 * @param {string[]} lines
 */
export function fillList(list, lines) {
  if (lines.length === 0) list.remove();
  list.replaceChildren(...lines.map((line) => el("li", line)));
}

/**
 * @param {Element} list
 * @param {[string, string][]} facts
 */
export function fillFacts(list, facts) {
  list.replaceChildren(...facts.flatMap(([name, value]) => [el("dt", name), el("dd", value)]));
}

/**
 * An SVG element. Its look comes from CSS classes: the content-security policy allows no inline style.
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {string} [text]
 * @returns {SVGElement}
 */
export function svg(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  if (text !== undefined) element.textContent = text;
  return element;
}
