// The two charts of the overview. Colours are those of the states, read from the style sheet.

import { duration } from "./dom.js";
import uPlot from "./vendor/uplot/uPlot.esm.js";

const HEIGHT = 168;
const DASHES = [4, 4];

/** What a canvas can draw with: the style sheet's colour, as it is in the theme of the moment. */
function colour(name) {
  const probe = document.getElementById("overview").appendChild(document.createElement("i"));
  probe.style.color = `var(--${name})`;
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

function axes(values, size, splits) {
  const line = { stroke: colour("quiet"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
  const font = "11px system-ui, sans-serif";
  return [
    { ...line, font, grid: { show: false }, space: 60, size: 24, values: (u, at) => at.map((x) => clockMinute(x)) },
    { ...line, font, space: 32, size, splits, values: (u, at) => at.map((y) => (y == null ? "" : values(y))) },
  ];
}

function clockMinute(at) {
  const date = new Date(at * 1000);
  return `${String(date.getHours()).padStart(2, "0")}:${String(date.getMinutes()).padStart(2, "0")}`;
}

function options(width, series, { y, values, size, splits }) {
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, points: { size: 6 } },
    scales: { x: { time: true }, y },
    axes: axes(values, size, splits),
    series: [{}, ...series.map(([name, dash]) => ({
      stroke: colour(name), width: 1.5, dash: dash ? DASHES : undefined, points: { size: 4, show: true }, spanGaps: false,
    }))],
  };
}

/** Seconds are drawn on a logarithmic scale: what is in milliseconds stays readable beside what takes minutes. */
function decades(u, least, most) {
  const [low, high] = [least || 0.001, most || 1];
  return [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high) + 0.05)];
}

function powers(low, high) {
  const found = [];
  for (let at = low; at <= high * 1.01; at *= 10) found.push(Number(at.toPrecision(1)));
  return found;
}

export class Charts {
  constructor(throughput, latency) {
    this.throughput = throughput;
    this.latency = latency;
    this.minutes = null;
    new ResizeObserver(() => this.resize()).observe(throughput);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.remake());
    // The admin's own switch.
    new MutationObserver(() => this.remake()).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  draw(minutes) {
    this.minutes = minutes;
    const column = (i) => minutes.map((minute) => minute[i] || null);
    this.data = [
      [minutes.map((minute) => minute[0]), minutes.map((minute) => minute[2]), minutes.map((minute) => minute[3])],
      [minutes.map((minute) => minute[0]), column(5), column(6), column(7), column(8)],
    ];
    if (!this.plots) this.remake();
    else this.plots.forEach((plot, i) => plot.setData(this.data[i]));
  }

  remake() {
    if (!this.minutes || this.throughput.clientWidth === 0) return;
    this.plots?.forEach((plot) => plot.destroy());
    const whole = (y) => (Number.isInteger(y) ? y.toLocaleString("en-US") : "");
    const counts = { y: { range: (u, least, most) => [0, Math.max(4, most * 1.1)] }, values: whole, size: 48 };
    const seconds = { y: { distr: 3, range: decades }, values: duration, size: 56, splits: (u, i, low, high) => powers(low, high) };
    const lines = [["queued"], ["queued", true], ["running"], ["running", true]];
    this.plots = [
      new uPlot(options(this.throughput.clientWidth, [["completed"], ["failed"]], counts), this.data[0], this.throughput),
      new uPlot(options(this.latency.clientWidth, lines, seconds), this.data[1], this.latency),
    ];
  }

  resize() {
    if (!this.plots) this.remake();
    else for (const plot of this.plots) plot.setSize({ width: plot.root.parentNode.clientWidth, height: HEIGHT });
  }
}
