"use strict";

// Nothing leaves this machine: no badge of a validator elsewhere, no specification by way of the address.
SwaggerUIBundle({
  domNode: document.getElementById("docs"),
  url: document.getElementById("docs").dataset.schema,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  deepLinking: true,
  validatorUrl: null,
  queryConfigEnabled: false,
  tagsSorter: (one, other) => ["contract", "tasks", "functions", "service"].indexOf(one) -
    ["contract", "tasks", "functions", "service"].indexOf(other),
});
