// @ts-check
// Symbols, so that nothing is told by colour alone. 16 × 16, drawn in the colour of the text around them.

const SVG = "http://www.w3.org/2000/svg";

const RING = "M8 1.75a6.25 6.25 0 1 1 0 12.5a6.25 6.25 0 0 1 0-12.5z";
const DISC = "M8 1a7 7 0 1 1 0 14A7 7 0 0 1 8 1z";
const TRIANGLE = "M8 1.6 15.2 14.4H.8z";

/** @type {Record<string, {path: string, kind: "stroke" | "fill", dashed?: boolean}[]>} */
const SHAPES = {
  UNKNOWN: [{ path: RING, kind: "stroke", dashed: true }],
  LEARNING: [
    { path: RING, kind: "stroke" },
    { path: "M8 8V3.6A4.4 4.4 0 0 1 12.4 8z", kind: "fill" },
  ],
  MEMORIZED: [
    { path: RING, kind: "stroke" },
    { path: "M8 3.6a4.4 4.4 0 0 1 0 8.8z", kind: "fill" },
  ],
  GENERALIZING: [
    { path: RING, kind: "stroke" },
    { path: "M8 8V3.6A4.4 4.4 0 1 1 3.6 8z", kind: "fill" },
  ],
  GENERALIZED: [{ path: `${DISC}M4.3 8.3l2.6 2.6 4.9-5.3-1.2-1-3.8 4.1-1.4-1.5z`, kind: "fill" }],
  OVERFITTING: [{ path: `${TRIANGLE}M7.2 6v4h1.6V6zM7.2 11.2v1.6h1.6v-1.6z`, kind: "fill" }],
  REGRESSING: [
    { path: RING, kind: "stroke" },
    { path: "M8 4.4v6.8M5 8.4l3 3 3-3", kind: "stroke" },
  ],
  ok: [{ path: "M3 8.6l3.2 3.2L13 4.6", kind: "stroke" }],
  warn: [{ path: `${TRIANGLE}M7.2 6v4h1.6V6zM7.2 11.2v1.6h1.6v-1.6z`, kind: "fill" }],
  bad: [{ path: `${DISC}M5.2 4.2l-1 1L7 8l-2.8 2.8 1 1L8 9l2.8 2.8 1-1L9 8l2.8-2.8-1-1L8 7z`, kind: "fill" }],
  CONTINUE: [{ path: "M4 2.5 13.2 8 4 13.5z", kind: "fill" }],
  CHECKPOINT: [{ path: "M3.5 1.5h9v13L8 11l-4.5 3.5z", kind: "fill" }],
  STOP: [{ path: "M5 1h6l4 4v6l-4 4H5l-4-4V5zM5 7v2h6V7z", kind: "fill" }],
};

/** @param {string} name a phase, an action, or ok, warn, bad */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  for (const shape of SHAPES[name] ?? SHAPES.UNKNOWN ?? []) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", shape.path);
    if (shape.kind === "fill") {
      path.setAttribute("fill", "currentColor");
      path.setAttribute("fill-rule", "evenodd");
    } else {
      path.setAttribute("fill", "none");
      path.setAttribute("stroke", "currentColor");
      path.setAttribute("stroke-width", "1.5");
      if (shape.dashed) path.setAttribute("stroke-dasharray", "2.6 2.2");
    }
    svg.append(path);
  }
  return svg;
}
