/* Elements of a page, made. */

"use strict";

const make = (tag, attributes = {}, ...children) => grow(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) =>
  grow(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

/* Attributes that begin with "on" are listeners. */
function grow(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}
