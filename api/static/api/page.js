// What every page has: the connection's state, search by "/", UTC by "u", times that go on, buttons that copy.

import { byId, clock, switchUtc, tickAll, write } from "./dom.js";
import { onState } from "./live.js";

const connection = byId("connection");

function showState({ word, since }) {
  connection.className = `connection ${word}`;
  const text = word === "stale" ? `stale since ${clock(since)}` : word;
  write(connection, text);
  document.body.classList.toggle("is-stale", word === "stale");
}

if (connection) onState(showState);

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing) {
    if (event.key === "Escape") typing.blur();
    return;
  }
  const search = document.querySelector(".search input");
  if (event.key === "/" && search) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === "u") switchUtc();
});

tickAll();
setInterval(tickAll, 1000);

// Browsers allow copying on HTTPS and on loopback only.
if (navigator.clipboard) {
  for (const button of document.querySelectorAll("button[data-copies]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(byId(button.dataset.copies).textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
}
