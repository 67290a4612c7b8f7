// A list of tasks, live. While it is hovered or scrolled, its lines change in place but none comes or goes:
// what is new waits behind "12 new".

import { byId, duration, sync, toggle, view, write } from "./dom.js";
import { hide, show } from "./live.js";
import { changeTaskRow, taskRow } from "./rows.js";

const SLIDE_MS = 1000;
const given = view();
const list = byId("tasks");
const news = byId("news");
const paged = new URLSearchParams(location.search).has("upto");

let order = [];
let rows = new Map();
let shownOrder = [];
let held = ""; // the topic by which the lines of a held list stay true
let slidAt = 0;
let timer = 0;
let hovered = false;

const scrolled = () => window.scrollY > 8;
const isHeld = () => !paged && shownOrder.length > 0 && (hovered || scrolled());

function take(parts, full) {
  if (full) rows = new Map();
  for (const [name, row] of Object.entries(parts)) if (name.startsWith("row:")) rows.set(row.id, row);
  if (parts.order) {
    order = parts.order;
    rows = new Map(order.map((id) => [id, rows.get(id)]));
  }
  if ("next" in parts) older(parts.next);
  for (const child of list.children) if (rows.has(child.dataset.key)) changeTaskRow(child, rows.get(child.dataset.key));
  settle();
}

/** Lets lines come and go, if the list may move now. */
function settle() {
  clearTimeout(timer);
  timer = 0;
  if (isHeld()) {
    hold();
    const shown = new Set(shownOrder);
    const waiting = order.filter((id) => !shown.has(id) && id > shownOrder[0]).length;
    write(news, `${waiting}${waiting && waiting === order.length ? "+" : ""} new`);
    toggle(news, waiting > 0);
    return;
  }
  const wait = slidAt + SLIDE_MS - Date.now();
  if (wait > 0 && shownOrder.length) {
    timer = setTimeout(settle, wait);
    return;
  }
  slidAt = Date.now();
  release();
  toggle(news, false);
  const fresh = new Set(order.filter((id) => !shownOrder.includes(id)));
  const first = shownOrder.length === 0;
  shownOrder = order;
  sync(list, order.map((id) => rows.get(id)), (task) => task.id, taskRow, changeTaskRow);
  for (const child of list.children) {
    child.classList.remove("left");
    child.classList.toggle("fresh", !first && fresh.has(child.dataset.key));
  }
  toggle(byId("no-task"), order.length === 0);
  percentiles();
}

/** Lines that the newest page no longer has would stay as they were: another topic begins at the first line shown. */
function hold() {
  if (held) return;
  held = `${given.topic}${given.topic.endsWith("?") ? "" : "&"}upto=${shownOrder[0]}`;
  let present = new Set(shownOrder);
  show(held, (parts) => {
    if (parts.order) present = new Set(parts.order);
    for (const child of list.children) {
      const row = parts[`row:${child.dataset.key}`];
      if (row) changeTaskRow(child, row);
      child.classList.toggle("left", !present.has(child.dataset.key));
    }
  });
}

function release() {
  if (held) hide(held);
  held = "";
}

function older(next) {
  const link = byId("older-page");
  toggle(link, next !== null);
  if (next === null) return;
  const url = new URL(location.href);
  url.searchParams.set("upto", next);
  link.href = url.href;
}

/** On a function's page. */
function percentiles() {
  const place = byId("percentiles");
  if (!place) return;
  const ran = [...rows.values()].filter((task) => task.started && task.finished);
  const times = ran.map((task) => task.finished - task.started).sort((a, b) => a - b);
  const at = (share) => duration(times[Math.min(times.length - 1, Math.floor(share * times.length))]);
  write(place, times.length ? `p50 ${at(0.5)}, p95 ${at(0.95)}, longest ${at(1)}` : "none has ended");
}

list.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") hovered = true; });
list.addEventListener("pointerleave", () => { hovered = false; settle(); });
window.addEventListener("scroll", settle, { passive: true });
news.addEventListener("click", () => {
  hovered = false;
  slidAt = 0;
  shownOrder = [];
  window.scrollTo({ top: 0 });
  settle();
});

if (paged) {
  const url = new URL(location.href);
  url.searchParams.delete("upto");
  byId("newest-page").href = url.href;
}
take(given.parts, true);
show(given.topic, take);
