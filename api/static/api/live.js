// The one WebSocket of this page: subscribes, acknowledges, notices when it hangs, and comes back by itself.

const BACK_OFF_MS = [250, 10_000];
const PING_MS = 10_000;
const PONG_MS = 5_000;
// What the server may send ahead is twice this: see api/live/page.py.
const ACK_EVERY = 4;
const ACK_AFTER_MS = 1_000;
const NOT_LET_IN = 4001; // see api/consumers.py

const shown = new Map(); // topic → handler(parts, full, gone)
const watchers = new Set();
let socket = null;
let pause = BACK_OFF_MS[0];
let received = 0;
let acknowledged = 0;
let ackTimer = 0;
let pongTimer = 0;
let retryTimer = 0;
let heardAt = Date.now();
let serverStale = null;
let clockOffset = 0;
let state = { word: "connecting", since: null };

/** Seconds since 1970 by the server's clock. */
export const now = () => Date.now() / 1000 + clockOffset;

/** Calls `handler` with what there is of `topic` now, and with each change. */
export function show(topic, handler) {
  shown.set(topic, handler);
  tell({ subscribe: [topic] });
}

export function hide(topic) {
  if (shown.delete(topic)) tell({ unsubscribe: [topic] });
}

/** Calls `watcher({word, since})`: word is live, connecting or stale. */
export function onState(watcher) {
  watchers.add(watcher);
  watcher(state);
}

function tell(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function become(word, since = null) {
  if (state.word === word && state.since === since) return;
  state = { word, since };
  for (const watcher of watchers) watcher(state);
}

function connect() {
  clearTimeout(retryTimer);
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const mine = new WebSocket(`${scheme}://${location.host}/live`);
  socket = mine;
  received = acknowledged = 0;
  mine.addEventListener("open", () => {
    heardAt = Date.now();
    if (shown.size) tell({ subscribe: [...shown.keys()] });
  });
  mine.addEventListener("message", (event) => {
    if (mine === socket) take(JSON.parse(event.data));
  });
  mine.addEventListener("close", (event) => {
    if (event.code === NOT_LET_IN) location.reload(); // to the page to log in by
    else if (mine === socket) lost();
  });
}

function take(message) {
  heardAt = Date.now();
  clearTimeout(pongTimer);
  if (message.topic !== undefined) {
    received += 1;
    acknowledgeSoon();
    shown.get(message.topic)?.(message.parts, message.full, message.gone);
  } else if (message.stale !== undefined) {
    pause = BACK_OFF_MS[0];
    clockOffset = message.now - Date.now() / 1000;
    serverStale = message.stale;
    become(serverStale === null ? "live" : "stale", serverStale);
  } else if (message.refused !== undefined) {
    console.warn("refused:", message.refused);
  }
}

function acknowledgeSoon() {
  if (received - acknowledged >= ACK_EVERY) acknowledge();
  else if (!ackTimer) ackTimer = setTimeout(acknowledge, ACK_AFTER_MS);
}

function acknowledge() {
  clearTimeout(ackTimer);
  ackTimer = 0;
  acknowledged = received;
  tell({ ack: received });
}

function lost() {
  socket = null;
  clearTimeout(pongTimer);
  clearTimeout(ackTimer);
  ackTimer = 0;
  if (state.word !== "stale") become("stale", heardAt / 1000 + clockOffset);
  // Not all pages at the same moment.
  retryTimer = setTimeout(connect, pause * (0.5 + Math.random() / 2));
  pause = Math.min(pause * 2, BACK_OFF_MS[1]);
}

function ping() {
  if (socket?.readyState !== WebSocket.OPEN) return;
  tell({ ping: 1 });
  clearTimeout(pongTimer);
  pongTimer = setTimeout(() => {
    socket?.close();
    lost();
  }, PONG_MS);
}

setInterval(ping, PING_MS);
for (const moment of ["online", "visibilitychange", "pageshow"]) {
  window.addEventListener(moment, () => {
    if (document.visibilityState === "hidden") return;
    if (socket === null) connect();
    else ping();
  });
}
connect();
