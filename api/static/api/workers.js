// The workers, and what each runs.

import { byId, sync, toggle, view } from "./dom.js";
import { show } from "./live.js";
import { changeWorkerRow, workerRow } from "./rows.js";

function take({ workers }) {
  sync(byId("workers"), workers, (worker) => `${worker.name} ${worker.pid}`, workerRow, changeWorkerRow);
  toggle(byId("no-worker"), workers.length === 0);
}

take(view().parts);
show("workers", take);
