// The time line: one bar a window, both thresholds, a play head. Hover, arrow keys, click or Enter to seek.
//
// Drawn here because no library fits. uPlot, Chart.js and Lightweight Charts draw on a canvas, where a window is no
// element that could have the focus and a name; that layer would be ours all the same. And what comes as a Python
// package brings IPython, pandas or a web framework along, or a D3 of 2016.

import { svg } from "./dom.js";
import { clock, reading, score, threshold } from "./words.js";

/** @typedef {import("./types.js").ScoredFile} ScoredFile */
/** @typedef {import("./types.js").Segment} Segment */

const HEIGHT = 190;
const EDGE = { left: 34, right: 12, top: 14, bottom: 26 };
const MIN_BAR = 7;

/**
 * Draw the time line and keep it as wide as its place.
 * @param {SVGSVGElement} root
 * @param {ScoredFile} answer
 * @param {{onSeek: (seconds: number) => void, onShow: (text: string) => void}} options
 * @returns {(seconds: number) => void} moves the play head
 */
export function timeline(root, answer, { onSeek, onShow }) {
  const { segments, threshold: limits } = answer;
  const last = segments.at(-1);
  const duration = Math.max(answer.media.duration_s, last ? last.end_s : 0, 0.001);
  let width = 0;
  let current = 0;
  /** Seconds; the play head hides until the video was moved. */
  let played = -1;
  /** @type {SVGElement[]} */
  let bars = [];
  /** @type {SVGElement | undefined} */
  let playhead;

  /** @param {number} seconds */
  const x = (seconds) => EDGE.left + (seconds / duration) * (width - EDGE.left - EDGE.right);
  /** @param {number} value */
  const y = (value) => EDGE.top + (1 - value) * (HEIGHT - EDGE.top - EDGE.bottom);
  const decimals = duration < 60 ? 1 : 0;

  /** @param {Segment} segment */
  const sentence = (segment) => {
    const reads = { generated: "above the threshold", authentic: "reads as camera", between: "between the thresholds" };
    const span = `${clock(segment.start_s, 1)} to ${clock(segment.end_s, 1)}`;
    return `${span}: score ${score(segment.score)}, ${reads[reading(segment.score, limits)]}`;
  };

  /**
   * @param {number} index
   * @param {boolean} focus
   */
  const select = (index, focus) => {
    bars[current]?.setAttribute("tabindex", "-1");
    bars[current]?.classList.remove("current");
    current = Math.min(Math.max(index, 0), segments.length - 1);
    const bar = bars[current];
    bar?.setAttribute("tabindex", "0");
    if (focus && bar) {
      bar.classList.add("current");
      bar.focus();
      onShow(sentence(segments[current]));
    }
  };

  const movePlayhead = () => {
    playhead?.classList.toggle("off", played < 0);
    playhead?.setAttribute("x1", String(x(played)));
    playhead?.setAttribute("x2", String(x(played)));
  };

  const draw = () => {
    const hadFocus = root.contains(document.activeElement);
    width = Math.max(root.clientWidth, 240);
    root.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    root.setAttribute("height", String(HEIGHT));
    root.setAttribute("aria-label", `Score of ${segments.length} windows over ${clock(duration, decimals)}. Arrow keys move, Enter seeks.`);
    const parts = [];
    for (const value of [0, 0.5, 1]) {
      parts.push(svg("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value) }));
      parts.push(svg("text", { x: EDGE.left - 8, y: y(value) + 4, "text-anchor": "end", "aria-hidden": "true" }, String(value)));
    }
    for (const [index, share] of [0, 0.25, 0.5, 0.75, 1].entries()) {
      const anchor = index === 0 ? "start" : index === 4 ? "end" : "middle";
      if (width < 420 && index % 2 === 1) continue;
      parts.push(svg("text", { x: x(share * duration), y: HEIGHT - 6, "text-anchor": anchor, "aria-hidden": "true" }, clock(share * duration, decimals)));
    }
    const middles = segments.map((s) => `${x((s.start_s + s.end_s) / 2)},${y(s.score)}`);
    parts.push(svg("polyline", { class: "link", points: middles.join(" ") }));
    bars = segments.map(drawWindow);
    parts.push(...bars);
    for (const [kind, value, dy, words] of /** @type {[string, number, number, string][]} */ ([
      ["high", limits.value, -5, `generated from ${threshold(limits.value)}`],
      ["low", limits.lower, 14, `camera below ${threshold(limits.lower)}`],
    ])) {
      parts.push(svg("line", { class: kind, x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value) }));
      const at = y(value) + dy;
      const outside = at < 10 ? 14 : at > HEIGHT - EDGE.bottom - 8 ? -5 : dy;
      parts.push(svg("text", { class: `${kind}-label`, x: width - EDGE.right, y: y(value) + outside, "text-anchor": "end", "aria-hidden": "true" }, words));
    }
    playhead = svg("line", { class: "playhead", y1: EDGE.top, y2: HEIGHT - EDGE.bottom });
    parts.push(playhead);
    root.replaceChildren(...parts);
    movePlayhead();
    select(current, hadFocus);
  };

  /**
   * @param {Segment} segment
   * @param {number} index
   */
  const drawWindow = (segment, index) => {
    const wide = Math.max(x(segment.end_s) - x(segment.start_s), segments.length > 60 ? 1 : MIN_BAR);
    const left = Math.min(x(segment.start_s), width - EDGE.right - wide);
    const top = y(segment.score);
    const group = svg("g", {
      class: `window as-${reading(segment.score, limits)}`,
      role: "button",
      tabindex: index === current ? 0 : -1,
      "aria-label": `Window ${index + 1} of ${segments.length}, ${sentence(segment)}`,
    });
    group.append(
      svg("rect", { class: "ring", x: left - 2, y: EDGE.top - 2, width: wide + 4, height: HEIGHT - EDGE.top - EDGE.bottom + 4, rx: 4 }),
      // The whole column takes the pointer, however low the bar is.
      svg("rect", { x: left, y: EDGE.top, width: wide, height: HEIGHT - EDGE.top - EDGE.bottom, fill: "transparent" }),
      svg("rect", { class: "bar", x: left, y: top, width: wide, height: Math.max(y(0) - top, 0) }),
      svg("rect", { class: "cap", x: left, y: top - 1.5, width: wide, height: 3, rx: 1.5 }),
    );
    group.addEventListener("pointerenter", () => onShow(sentence(segment)));
    group.addEventListener("pointerleave", () => onShow(""));
    group.addEventListener("click", () => {
      select(index, true);
      onSeek(segment.start_s);
    });
    return group;
  };

  root.addEventListener("keydown", (event) => {
    /** @type {Record<string, number>} */
    const moves = { ArrowRight: current + 1, ArrowLeft: current - 1, Home: 0, End: segments.length - 1 };
    if (event.key in moves) select(moves[event.key], true);
    else if (event.key === "Enter" || event.key === " ") onSeek(segments[current].start_s);
    else return;
    event.preventDefault();
  });
  root.addEventListener("focusin", (event) => {
    const index = bars.indexOf(/** @type {SVGElement} */ (event.target));
    if (index >= 0) onShow(sentence(segments[index]));
  });
  root.addEventListener("focusout", () => {
    bars[current]?.classList.remove("current");
    onShow("");
  });
  new ResizeObserver(() => {
    if (root.clientWidth && root.clientWidth !== width) draw();
  }).observe(root);
  draw();

  return (seconds) => {
    played = Math.min(seconds, duration);
    movePlayhead();
  };
}
