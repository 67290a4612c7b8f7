// One task: what became of it, its attempts, its output as it is printed, cancel and re-run.

import { Terminal } from "./ansi.js";
import { byId, duration, el, exact, moment, number, proof, since, stateMark, stateWord, sync, toggle, view, write } from "./dom.js";
import { hide, now, show } from "./live.js";

const given = view();
const terminal = new Terminal(byId("output"));
const printed = []; // bytes, for the download while it runs
let known = given.parts;
let logTopic = "";
let shownOutput = ""; // "live", or the number of an attempt
let chosen = null; // the attempt that somebody has asked for

const isEnded = (task) => task.row.finished !== null;

function said(text, isError = false) {
  const place = byId("said");
  toggle(place, true);
  place.className = isError ? "said failed" : "said";
  place.replaceChildren(text);
}

async function act(button, path, done) {
  button.disabled = true; // heard
  try {
    const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json", ...proof() }, body: "{}" });
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error?.message ?? `the server answered ${answer.status}`);
    done(body);
  } catch (error) {
    said(`That did not work: ${error.message}`, true);
  } finally {
    button.disabled = false;
  }
}

byId("cancel").addEventListener("click", (event) =>
  act(event.target, `/api/v1/tasks/${given.id}/cancel`, () => said("Cancelling: it ends as soon as its process is gone.")));
byId("retry").addEventListener("click", (event) =>
  act(event.target, `/api/v1/tasks/${given.id}/retry`, (task) => location.assign(`/tasks/${task.id}/`)));

function headline(task) {
  const { row } = task;
  byId("state").replaceChildren(stateMark(row.state, stateWord(row).toUpperCase()));
  const where = row.worker ? `on ${row.worker}` : "";
  const start = row.starts > 1 || task.max_attempts > 1 && row.starts ? `start ${row.starts} of at most ${task.max_attempts}` : "";
  write(byId("where"), [where, start].filter(Boolean).join(", "));
  toggle(byId("cancel"), !isEnded(task) && !row.cancelling);
  toggle(byId("retry"), isEnded(task));
  if (isEnded(task) && !byId("said").classList.contains("failed")) toggle(byId("said"), false);
}

function timeline(task) {
  const { row } = task;
  const ready = Math.max(row.created, task.run_after ?? 0);
  const step = (state, word, from, to) => el("li", { class: state }, el("span", {}, word), " ",
    to === null ? since(from) : duration(to - from));
  const steps = [el("li", {}, el("span", {}, "accepted"), " ", moment(row.created))];
  if (row.started) {
    steps.push(step("queued", "waited", ready, row.started));
    steps.push(step("running", row.finished ? "ran" : "running", row.started, row.finished));
  } else if (row.finished) steps.push(step("queued", "waited, never begun", ready, row.finished));
  else if (task.run_after > now()) steps.push(el("li", {}, el("span", {}, "due"), " ", moment(task.run_after)));
  else steps.push(step("queued", "waiting", ready, null));
  if (row.finished) steps.push(el("li", { class: row.state }, el("span", {}, row.state), " ", moment(row.finished)));
  byId("timeline").replaceChildren(...steps);
}

function details(task) {
  const bytes = (value) => (value === null ? "none yet" : `${number(value)} bytes`);
  const pairs = [
    ["arguments", bytes(task.payload_size)],
    ["result", isEnded(task) ? el("a", { href: `/result/${given.id}` }, bytes(task.result_size)) : bytes(task.result_size)],
    ["deadline", task.deadline_s ? duration(task.deadline_s) : "none of its own"],
    ["priority", task.priority],
    ["deaths, failures", `${task.deaths}, ${task.failures}`],
  ];
  if (task.waits_for) pairs.unshift(["waits for", task.waits_for]);
  if (task.expires_at) pairs.push(["expires", moment(task.expires_at)]);
  if (task.cancel_requested_at) pairs.push(["cancel asked for", moment(task.cancel_requested_at)]);
  if (task.retry_of) pairs.push(["repeats", el("a", { href: `/tasks/${task.retry_of}/`, class: "mono" }, task.retry_of)]);
  byId("details").replaceChildren(...pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

function how(attempt) {
  if (attempt.exit_signal !== null) return `${attempt.outcome}, signal ${attempt.exit_signal}`;
  if (attempt.exit_code !== null) return `${attempt.outcome}, exit code ${attempt.exit_code}`;
  return attempt.outcome.replaceAll("_", " ");
}

function attemptRow(attempt) {
  const button = el("button", { type: "button", class: "plain" },
    el("span", {}, `attempt ${attempt.attempt}`), el("span", {}, how(attempt)),
    el("span", { class: "quiet" }, attempt.worker ? `${attempt.worker}, slot ${attempt.slot}` : ""),
    el("span", { class: "number" }, attempt.began ? duration(attempt.ended - attempt.began) : "not begun"));
  button.title = exact(attempt.ended);
  button.addEventListener("click", () => { chosen = attempt.attempt; output(); errors(); });
  return el("li", {}, button);
}

const ofInterest = () => known.attempts.find((item) => item.attempt === chosen) ?? known.attempts[0];

function errors() {
  const attempt = ofInterest();
  const text = attempt?.traceback || [attempt?.error_type, attempt?.message].filter(Boolean).join(": ") || known.task.error || "";
  toggle(byId("error-section"), text !== "" && (chosen !== null || known.task.row.state === "failed"));
  write(byId("error"), text);
}

// --- output

const bytesOf = (base64) => Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));

function showBytes(bytes) {
  const pre = byId("output");
  terminal.write(bytes);
  toggle(byId("no-output"), false);
  if (byId("follow").checked) pre.scrollTop = pre.scrollHeight;
}

function takeLog(parts, full) {
  if (shownOutput !== "live") return;
  if (full) {
    terminal.clear();
    printed.length = 0;
    toggle(byId("no-output"), true);
  }
  for (const chunk of parts.chunks) {
    const bytes = bytesOf(chunk.data);
    printed.push(bytes);
    showBytes(bytes);
    if (chunk.dropped) terminal.note(`… ${number(chunk.dropped)} bytes were printed too fast to be shown here …`);
  }
  toggle(byId("download"), printed.length > 0);
}

function live() {
  if (shownOutput === "live") return;
  shownOutput = "live";
  terminal.clear();
  write(byId("output-of"), "live");
  toggle(byId("follow-label"), true);
  logTopic = `log:${given.id}`;
  show(logTopic, takeLog);
}

async function stored(attempt) {
  if (shownOutput === String(attempt.attempt)) return;
  shownOutput = String(attempt.attempt);
  if (logTopic) hide(logTopic);
  logTopic = "";
  write(byId("output-of"), `attempt ${attempt.attempt}`);
  toggle(byId("follow-label"), false);
  const has = attempt.output > 0;
  toggle(byId("download"), has);
  if (has) {
    const path = `/tasks/${given.id}/output?attempt=${attempt.attempt}`;
    const download = byId("download");
    download.href = `${path}&download=1`;
    download.removeAttribute("download");
    const answer = await fetch(path);
    const { head, tail, dropped } = await answer.json();
    if (shownOutput !== String(attempt.attempt)) return;
    terminal.clear();
    showBytes(bytesOf(head));
    if (dropped) terminal.note(`\n… ${number(dropped)} bytes between are not kept …`);
    showBytes(bytesOf(tail));
  } else {
    terminal.clear();
  }
  toggle(byId("no-output"), !has);
}

byId("download").addEventListener("click", (event) => {
  if (shownOutput !== "live") return;
  event.target.href = URL.createObjectURL(new Blob(printed, { type: "text/plain" }));
  event.target.download = `${given.id}.txt`;
});

function output() {
  const attempt = ofInterest();
  if (chosen === null && !isEnded(known.task)) live();
  else if (attempt) stored(attempt);
}

function take(parts) {
  known = { ...known, ...parts };
  if (!known.task) return;
  headline(known.task);
  timeline(known.task);
  details(known.task);
  sync(byId("attempts"), known.attempts, (attempt) => String(attempt.attempt), attemptRow, () => {});
  toggle(byId("no-attempt"), known.attempts.length === 0);
  errors();
  output();
}

take(given.parts);
show(`task:${given.id}`, take);
