// The time line: each window's score over its time, both thresholds, a play head. Chart.js draws it.
//
// A canvas has no elements that could have the focus and a name, so for keys and screen readers it is a slider
// whose values are the windows; the table beside it has them all.

import { clock, reading, score, threshold } from "./words.js";

/** @typedef {import("./types.js").ScoredFile} ScoredFile */
/** @typedef {import("./types.js").Segment} Segment */

/**
 * Fetched while the page is already of use; the service has it from a Python package (see app/routes/pages.py).
 * It is a script of the kind that leaves itself in the global object.
 * @type {Promise<any>}
 */
const library = import(/** @type {string} */ ("/static/charts/Chart.bundle.js")).then(() => /** @type {any} */ (globalThis).Chart);

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", async () => {
  for (const chart of Object.values((await library).instances)) chart.update("none");
});

/**
 * Draw the time line and keep it as wide as its place.
 * @param {HTMLCanvasElement} canvas
 * @param {ScoredFile} answer
 * @param {{onSeek: (seconds: number) => void, onShow: (text: string) => void}} options
 * @returns {(seconds: number) => void} moves the play head
 */
export function timeline(canvas, answer, { onSeek, onShow }) {
  const { segments, threshold: limits } = answer;
  const duration = Math.max(answer.media.duration_s, segments.at(-1)?.end_s ?? 0, 0.001);
  /** The window that the keys are at. */
  let current = 0;
  /** The window that is pointed at or has the focus; -1: none. */
  let marked = -1;
  /** @type {{x: number, y: number}[]} */
  let playhead = [];
  /** @type {any} of Chart.js, once that is there */
  let chart;
  const draw = () => chart?.update("none");

  /** @param {Segment} segment */
  const sentence = (segment) => {
    const reads = { generated: "above the threshold", authentic: "reads as camera", between: "between the thresholds" };
    const span = `${clock(segment.start_s, 1)} to ${clock(segment.end_s, 1)}`;
    return `${span}: score ${score(segment.score)}, ${reads[reading(segment.score, limits)]}`;
  };

  /** @param {number} index */
  const mark = (index) => {
    if (index === marked) return;
    marked = index;
    onShow(index < 0 ? "" : sentence(segments[index]));
    draw();
  };

  /** @param {number} index */
  const select = (index) => {
    current = Math.min(Math.max(index, 0), segments.length - 1);
    canvas.setAttribute("aria-valuenow", String(current + 1));
    canvas.setAttribute("aria-valuetext", `Window ${current + 1} of ${segments.length}, ${sentence(segments[current])}`);
  };

  /** @param {PointerEvent | MouseEvent} event */
  const windowAt = ({ offsetX }) => {
    if (!chart) return -1;
    const seconds = chart.scales.x.getValueForPixel(offsetX);
    const away = segments.map(({ start_s: start, end_s: end }) => Math.max(start - seconds, seconds - end, 0));
    return away.indexOf(Math.min(...away));
  };

  canvas.setAttribute("aria-label", `Time line of ${clock(duration, 1)}. Arrow keys move between windows, Enter seeks.`);
  canvas.setAttribute("aria-valuemin", "1");
  canvas.setAttribute("aria-valuemax", String(segments.length));
  select(0);

  canvas.addEventListener("keydown", (event) => {
    /** @type {Record<string, number>} */
    const moves = { ArrowRight: current + 1, ArrowUp: current + 1, ArrowLeft: current - 1, ArrowDown: current - 1, Home: 0, End: segments.length - 1 };
    if (event.key in moves) {
      select(moves[event.key]);
      mark(current);
    } else if (event.key === "Enter" || event.key === " ") onSeek(segments[current].start_s);
    else return;
    event.preventDefault();
  });
  canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && mark(current));
  canvas.addEventListener("blur", () => mark(-1));
  canvas.addEventListener("pointermove", (event) => mark(windowAt(event)));
  canvas.addEventListener("pointerleave", () => mark(-1));
  canvas.addEventListener("click", (event) => {
    const index = windowAt(event);
    if (index < 0) return;
    select(index);
    onSeek(segments[index].start_s);
  });

  void library.then((Chart) => {
    for (const old of Object.values(Chart.instances)) if (!old.canvas.isConnected) old.destroy();
    if (canvas.isConnected) chart = new Chart(canvas, configuration());
  });

  const configuration = () => {
    const style = getComputedStyle(canvas); // a live one: it follows the colour scheme
    /** @param {string} name */
    const colour = (name) => () => style.getPropertyValue(name);
    /** @param {number} index @param {string} [shade] */
    const tone = (index, shade = "") => {
      const names = { generated: "generated", authentic: "authentic", between: "inconclusive" };
      return style.getPropertyValue(`--${names[reading(segments[index].score, limits)]}${shade}`);
    };
    /** @param {string} label @param {number} value @param {string} name @param {number[]} dash */
    const limit = (label, value, name, dash) => ({
      label: `${label} ${threshold(value)}`,
      data: [0, duration].map((x) => ({ x, y: value })),
      borderColor: colour(name),
      borderDash: dash,
      borderWidth: 1.5,
      pointRadius: 0,
    });
    const crowded = segments.length > 60;
    return {
      type: "line",
      data: {
        datasets: [
          // The first one lies on top.
          { data: playhead, borderColor: colour("--ink"), borderWidth: 1.5, pointRadius: 0 },
          limit("generated from", limits.value, "--generated", [6, 4]),
          limit("camera below", limits.lower, "--authentic", [2, 4]),
          {
            data: segments.map(({ start_s: start, end_s: end, score: y }) => ({ x: (start + end) / 2, y })),
            borderColor: colour("--line-strong"),
            borderDash: [1, 4],
            borderWidth: 1,
            pointRadius: (/** @type {any} */ { dataIndex }) => (dataIndex === marked ? 6 : crowded ? 1.5 : 3.5),
            pointBackgroundColor: (/** @type {any} */ { dataIndex }) => tone(dataIndex),
            pointBorderColor: (/** @type {any} */ { dataIndex }) => (dataIndex === marked ? style.getPropertyValue("--ink") : tone(dataIndex)),
          },
          {
            // A block a window; NaN ends it.
            data: segments.flatMap(({ start_s: start, end_s: end, score: y }) => [{ x: start, y }, { x: end, y }, { x: end, y: NaN }]),
            borderWidth: 3,
            pointRadius: 0,
            fill: "origin",
            segment: {
              borderColor: (/** @type {any} */ { p0DataIndex }) => tone(Math.floor(p0DataIndex / 3)),
              backgroundColor: (/** @type {any} */ { p0DataIndex }) => tone(Math.floor(p0DataIndex / 3), "-soft"),
            },
          },
        ],
      },
      options: {
        animation: false,
        maintainAspectRatio: false,
        events: [], // ours are above
        parsing: false,
        clip: 4, // a score of 1 is drawn whole
        color: colour("--ink-soft"),
        font: { family: style.fontFamily, size: 12 },
        scales: {
          x: {
            type: "linear",
            min: 0,
            max: duration,
            grid: { display: false },
            border: { color: colour("--line") },
            ticks: { color: colour("--ink-soft"), includeBounds: false, maxRotation: 0, callback: (/** @type {number} */ seconds) => clock(seconds, duration < 60 ? 1 : 0) },
          },
          y: { min: 0, max: 1, grid: { color: colour("--line") }, border: { display: false }, ticks: { color: colour("--ink-soft"), stepSize: 0.5 } },
        },
        plugins: {
          tooltip: { enabled: false },
          legend: {
            align: "end",
            onClick: null,
            labels: { color: colour("--ink-soft"), filter: (/** @type {any} */ { text }) => text, boxWidth: 28, boxHeight: 0 },
          },
        },
      },
    };
  };

  return (seconds) => {
    playhead.splice(0, 2, ...[0, 1].map((y) => ({ x: Math.min(seconds, duration), y })));
    draw();
  };
}
