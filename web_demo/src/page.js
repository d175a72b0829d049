// The page: an image in, the network in a worker, the result beside the original. Nothing is sent anywhere.

import { showComparison } from "../../glean_ext/web/static/compare.js";
import { listenForDrops } from "../../glean_ext/web/static/drop.js";
import { fittedSize } from "./pixels.js";

// A module with one SIMD instruction: () -> i8x16.splat(0).
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11,
]);

const at = (id) => document.getElementById(id);
const [side, run, alertBox] = ["side", "run", "alert"].map(at);
let chosen = null; // {name, bitmap}
let worker = null;
let orders = 0; // to the worker; the answer to an earlier one is ignored
let urls = [];

function fail(text) {
  alertBox.textContent = text;
  alertBox.hidden = false;
  at("progress").hidden = true;
}

function missing() {
  if (typeof WebAssembly !== "object") {
    return "This browser has no WebAssembly, or it is switched off. Use a current Firefox, Chrome, Edge or Safari.";
  }
  if (WebAssembly.validate(SIMD)) return "";
  return (
    "This browser has no WebAssembly SIMD, which the model needs. " +
    "Use Firefox 89, Chrome or Edge 91, Safari 16.4, or later."
  );
}

async function choose(blob, name) {
  alertBox.hidden = true;
  try {
    chosen = { name, bitmap: await createImageBitmap(blob) };
  } catch {
    fail(`${name} is no image that this browser can show. Save it as PNG or JPEG.`);
    return;
  }
  at("chosen").textContent = `${name} (${chosen.bitmap.width} × ${chosen.bitmap.height})`;
  run.disabled = false;
  await restore();
}

/** The chosen image on a canvas of the size that the network gets. */
function inputPixels() {
  const [width, height] = fittedSize(chosen.bitmap.width, chosen.bitmap.height, Number(side.value));
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(chosen.bitmap, 0, 0, width, height);
  return { canvas, rgba: context.getImageData(0, 0, width, height).data, width, height };
}

function inWorker({ rgba, width, height }) {
  worker ??= new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  const order = ++orders;
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => {
      if (data.order === order) data.error ? reject(new Error(data.error)) : resolve(data);
    };
    worker.onerror = (event) => reject(new Error(event.message || "the worker could not be started"));
    worker.postMessage({ order, rgba, width, height }, [rgba.buffer]);
  });
}

async function restore() {
  const input = inputPixels();
  alertBox.hidden = true;
  run.disabled = true;
  at("empty").hidden = true;
  at("progress").hidden = false;
  at("progress-text").textContent = worker ? "Restoring …" : "Loading the model, once (22 MB) …";
  const started = performance.now();
  try {
    const result = await inWorker(input);
    const canvas = new OffscreenCanvas(result.width, result.height);
    canvas.getContext("2d").putImageData(new ImageData(result.rgba, result.width, result.height), 0, 0);
    await show(input, canvas, (performance.now() - started) / 1000);
  } catch (error) {
    worker?.terminate();
    worker = null;
    fail(`The image could not be restored (${error.message}). Try a smaller one, or load the page again.`);
  } finally {
    run.disabled = false;
  }
}

async function show(input, canvas, seconds) {
  for (const url of urls) URL.revokeObjectURL(url);
  urls = await Promise.all([input.canvas, canvas].map(async (one) => URL.createObjectURL(await one.convertToBlob())));
  at("result").hidden = false;
  at("progress").hidden = true;
  at("before").classList.toggle("tiny", Math.max(input.width, input.height) <= 64);
  at("download").href = urls[1];
  at("download").download = `${chosen.name.replace(/\.[^.]*$/, "")}_restored.png`;
  at("caption").textContent = `${input.width} × ${input.height} to ${canvas.width} × ${canvas.height}, ${seconds.toFixed(1)} s`;
  await showComparison(urls[0], urls[1], canvas.width, canvas.height);
}

function listen() {
  at("file").addEventListener("change", ({ target }) => target.files[0] && choose(target.files[0], target.files[0].name));
  at("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (chosen) restore();
  });
  side.addEventListener("input", () => (at("side-value").textContent = side.value));
  at("side-value").textContent = side.value;
  for (const button of document.querySelectorAll("#examples button")) {
    const source = button.firstElementChild.src;
    button.addEventListener("click", async () => choose(await (await fetch(source)).blob(), source.split("/").pop()));
  }
  listenForDrops(at("drop"), ([file]) => file && choose(file, file.name));
}

const reason = missing();
if (reason) {
  fail(reason);
  at("empty").hidden = true;
  for (const control of document.querySelectorAll("#form input, #form button")) control.disabled = true;
} else {
  listen();
}
