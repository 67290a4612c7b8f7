// The overview, on "/" and in the admin.

import { Charts } from "./charts.js";
import { byId, number, since, sync, toggle, view, write } from "./dom.js";
import { show } from "./live.js";
import { changeFailureRow, changeTaskRow, changeWorkerRow, failureRow, taskRow, workerRow } from "./rows.js";

const charts = new Charts(byId("throughput"), byId("latency"));
const known = {};
// New lines slide in at most once a second, and never under the pointer.
const SLIDE_MS = 1000;
let slidAt = 0;
let slideTimer = 0;

function slide() {
  clearTimeout(slideTimer);
  slideTimer = 0;
  const wait = slidAt + SLIDE_MS - Date.now();
  if (wait > 0 || byId("lists").matches(":hover")) {
    slideTimer = setTimeout(slide, Math.max(wait, 200));
    return;
  }
  slidAt = Date.now();
  sync(byId("newest"), known.newest, (task) => task.id, taskRow, changeTaskRow);
  sync(byId("failures"), known.failures, (task) => task.id, failureRow, changeFailureRow);
  toggle(byId("no-failure"), known.failures.length === 0);
}

/** Lines that are shown change at once, whatever waits. */
function changeShown() {
  for (const task of known.newest) {
    const row = byId("newest").querySelector(`[data-key="${task.id}"]`);
    if (row) changeTaskRow(row, task);
  }
  if (!slideTimer) slide();
}

function tiles() {
  const { counts, minutes, workers, queue } = known;
  const slots = workers.reduce((sum, worker) => sum + worker.slots, 0);
  write(byId("tile-queued"), number(counts.queued));
  byId("tile-oldest").replaceChildren(...(queue.oldest ? ["oldest ", since(queue.oldest)] : ["nothing waits"]));
  write(byId("tile-running"), number(counts.running));
  write(byId("tile-slots"), `of ${number(slots)} slots`);
  write(byId("tile-completed"), number(minutes.reduce((sum, minute) => sum + minute[2], 0)));
  write(byId("tile-completed-all"), `${number(counts.completed)} in all`);
  write(byId("tile-failed"), number(minutes.reduce((sum, minute) => sum + minute[3], 0)));
  write(byId("tile-failed-all"), `${number(counts.failed)} in all`);
}

function take(parts) {
  Object.assign(known, parts);
  tiles();
  const empty = Object.values(known.counts).every((count) => count === 0);
  toggle(byId("no-task"), empty);
  toggle(byId("charts"), !empty);
  toggle(byId("lists"), !empty);
  if (parts.minutes && !empty) charts.draw(known.minutes);
  if (parts.workers) {
    sync(byId("workers"), known.workers, (worker) => `${worker.name} ${worker.pid}`, workerRow, changeWorkerRow);
    toggle(byId("no-worker"), known.workers.length === 0);
  }
  if (parts.newest || parts.failures) changeShown();
}

take(view().parts);
show("overview", take);
