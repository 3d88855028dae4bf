// @ts-check
// A sequence of colours from small to large that keeps its order in grey and for colour-blind eyes (viridis).

export const RAMP = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];

const CHANNELS = RAMP.map((hex) => [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)));

/** @param {number} share 0 to 1 */
export function rampColour(share) {
  const place = Math.min(1, Math.max(0, share)) * (CHANNELS.length - 1);
  const below = Math.min(CHANNELS.length - 2, Math.floor(place));
  const [from, to] = [CHANNELS[below] ?? [], CHANNELS[below + 1] ?? []];
  const mixed = from.map((channel, index) => Math.round(channel + (place - below) * ((to[index] ?? 0) - channel)));
  return `rgb(${mixed.join(" ")})`;
}
