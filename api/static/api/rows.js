// Lines of lists: tasks, failures and workers.

import { duration, el, moment, short, since, stateMark, stateWord, write } from "./dom.js";

export const link = (task) => `/tasks/${task.id}/`;

/** How long it waited and ran, or has been doing so. */
function timing(task) {
  if (task.state === "running" && task.started) return [since(task.started)];
  if (task.started && task.finished) return [duration(task.finished - task.started)];
  if (task.finished) return [""];
  return [since(task.created)];
}

function note(task) {
  if (task.state === "failed" && task.error) return task.error;
  return task.starts > 1 ? `start ${task.starts}` : "";
}

function fill(row, task) {
  const same = JSON.stringify(task);
  if (row.dataset.content === same) return;
  row.dataset.content = same;
  const [state, name, id, worker, time, said, at] = row.firstElementChild.children;
  state.replaceChildren(stateMark(task.state, stateWord(task)));
  write(name, task.name);
  write(id, short(task.id));
  write(worker, task.worker ?? "");
  time.replaceChildren(...timing(task));
  write(said, note(task));
  said.title = task.error ?? "";
  at.replaceChildren(moment(task.created));
}

export function taskRow(task) {
  const cells = ["state-cell", "name", "id mono", "worker", "time number", "said", "at number"];
  const row = el("li", {}, el("a", { href: link(task) }, ...cells.map((name) => el("span", { class: name }))));
  row.firstElementChild.children[2].title = task.id;
  fill(row, task);
  return row;
}

export const changeTaskRow = fill;

export function failureRow(task) {
  const row = el("li", {}, el("a", { href: link(task) },
    el("span", { class: "state-cell" }, stateMark("failed")), el("span", { class: "name" }, task.name),
    el("span", { class: "said", title: task.error ?? "" }, task.error ?? ""),
    el("span", { class: "at number" }, moment(task.finished ?? task.created))));
  return row;
}

export function changeFailureRow() {
  // What has failed stays as it is.
}

export function workerRow(worker) {
  const row = el("li", {}, el("div", { class: "line" },
    el("span", { class: "name" }, worker.name), el("span", { class: "quiet kind" }, `${worker.mode}, Python ${worker.python}`),
    el("span", { class: "slots" }), el("span", { class: "number used" }), el("span", { class: "runs" })));
  changeWorkerRow(row, worker);
  return row;
}

export function changeWorkerRow(row, worker) {
  const same = JSON.stringify(worker);
  if (row.dataset.content === same) return;
  row.dataset.content = same;
  const [, , slots, used, runs] = row.firstElementChild.children;
  const busy = Math.min(worker.running.length, worker.slots);
  const shown = Math.min(worker.slots, 16);
  const filled = Math.ceil((busy / worker.slots) * shown);
  slots.replaceChildren(...Array.from({ length: shown }, (_, i) => el("i", { class: i < filled ? "busy" : "" })));
  slots.title = `${busy} of ${worker.slots} slots run something`;
  write(used, `${busy}/${worker.slots} slots${worker.draining ? ", draining" : ""}`);
  runs.replaceChildren(...worker.running.flatMap((run) => [
    el("a", { href: `/tasks/${run.id}/`, title: run.id }, run.name, " ", run.started ? since(run.started) : ""), " ",
  ]));
}

