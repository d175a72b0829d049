// Pixels between a canvas and the network: (1, 3, h, w) float32 RGB in [-1, 1].

export const SMALLEST = 8; // pixels a side that the network takes

/** The size of an image whose longer side is at most `side`, no side below the network's smallest. */
export function fittedSize(width, height, side) {
  const zoom = Math.min(1, side / Math.max(width, height));
  return [width, height].map((length) => Math.max(SMALLEST, Math.round(length * zoom)));
}

/** RGBA bytes (h * w * 4) -> floats (3 * h * w); transparency is laid over white. */
export function toFloats(rgba) {
  const count = rgba.length / 4;
  const floats = new Float32Array(3 * count);
  for (let i = 0; i < count; i++) {
    const alpha = rgba[4 * i + 3] / 255;
    for (let c = 0; c < 3; c++) {
      floats[c * count + i] = (rgba[4 * i + c] * alpha + 255 * (1 - alpha)) / 127.5 - 1;
    }
  }
  return floats;
}

/** Floats (3 * H * W) -> RGBA bytes, rounded and clamped. */
export function toBytes(floats) {
  const count = floats.length / 3;
  const rgba = new Uint8ClampedArray(4 * count).fill(255);
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < 3; c++) rgba[4 * i + c] = Math.round((floats[c * count + i] + 1) * 127.5);
  }
  return rgba;
}
