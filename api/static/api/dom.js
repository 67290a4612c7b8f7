// Small helpers: elements, changing only what differs, words for states, times and durations.

import { now } from "./live.js";

export const byId = (id) => document.getElementById(id);

/** What the server has put into the page for the script. */
export const view = () => JSON.parse(byId("view").textContent);

/** The headers by which the server knows that it was this page that asked; none where nobody has to log in. */
export function proof() {
  const field = document.querySelector("input[name=csrfmiddlewaretoken]");
  return field ? { "X-CSRFToken": field.value } : {};
}

export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value != null) element.setAttribute(name, value);
  element.append(...children.filter((child) => child != null));
  return element;
}

/** Changes in place, and only if it differs: selections and screen readers stay undisturbed. */
export function write(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

export function toggle(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

export const number = (value) => value.toLocaleString("en-US");

const SHAPES = { waiting: "◷", queued: "○", running: "●", completed: "✓", failed: "✕", cancelled: "–" };

/** A state: always a shape and a word, never colour alone. */
export function stateMark(state, word = state) {
  return el("span", { class: `state ${state}` }, el("i", { "aria-hidden": "true" }, SHAPES[state] ?? "·"), word);
}

export const stateWord = (task) => (task.cancelling ? "cancelling" : task.state);

export function duration(seconds) {
  if (seconds == null) return "";
  if (seconds < 0) seconds = 0;
  if (seconds < 0.0995) return `${Number((seconds * 1000).toPrecision(2))} ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${seconds < 9.95 ? seconds.toFixed(1).replace(/\.0$/, "") : Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)}:${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} h`;
  return `${Math.floor(whole / 86400)} d`;
}

export function ago(at) {
  const seconds = now() - at;
  if (seconds < 0) return `in ${duration(-seconds)}`;
  if (seconds < 1) return "now";
  const [size, unit] = seconds < 60 ? [1, "s"] : seconds < 3600 ? [60, "min"] : seconds < 86400 ? [3600, "h"] : [86400, "d"];
  return `${Math.floor(seconds / size)} ${unit} ago`;
}

let utc = false;

const two = (value) => String(value).padStart(2, "0");

export function exact(at) {
  const date = new Date(at * 1000);
  if (utc) return `${date.toISOString().replace("T", " ").slice(0, 23)} UTC`;
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${clock(at)}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

export function clock(at) {
  const date = new Date(at * 1000);
  return utc
    ? date.toISOString().slice(11, 19)
    : `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** A moment: relative, exact on hover, exact in UTC while that is switched on. */
export function moment(at) {
  const time = el("time", { "data-at": at });
  tick(time);
  return time;
}

/** How long since `at`: counts on by itself. */
export function since(at) {
  const time = el("time", { "data-since": at });
  tick(time);
  return time;
}

function tick(time) {
  const { at, since: begun } = time.dataset;
  const value = Number(at ?? begun);
  if (begun !== undefined) write(time, duration(now() - value));
  else write(time, utc ? exact(value) : ago(value));
  const title = exact(value);
  if (time.title !== title) time.title = title;
}

export function tickAll() {
  for (const time of document.querySelectorAll("time[data-at], time[data-since]")) tick(time);
}

export function switchUtc() {
  utc = !utc;
  tickAll();
  return utc;
}

/** The last part of an id, which differs where the first is the time. */
export const short = (id) => `${id.slice(0, 4)}…${id.slice(-6)}`;

/** Makes the children of `list` those for `items`, by key: kept where they are the same, changed where they differ. */
export function sync(list, items, key, make, change) {
  const old = new Map([...list.children].map((child) => [child.dataset.key, child]));
  let at = list.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let child = old.get(name);
    if (child) {
      old.delete(name);
      change(child, item);
    } else {
      child = make(item);
      child.dataset.key = name;
    }
    if (child === at) at = at.nextElementSibling;
    else list.insertBefore(child, at);
  }
  for (const child of old.values()) child.remove();
}
