// The page: choose an image, send it, follow the job, show the result. Names and messages are set as text, not as HTML.

import { showComparison } from "/compare.js";
import { listenForDrops } from "/drop.js";

const POLL_MS = 400;
const TINY = 64; // pixels; up to this size single pixels are shown sharp
const KINDS = {
  face: "The model restores the whole image.",
  photo: "The model restores every face that is found; the rest of the photo stays as it is.",
};
const COLOUR_KINDS = {
  face: "The model gives the whole image colours; its luminance stays.",
  photo: "The model gives every face that is found colours, then the rest of the photo.",
};
const byId = (id) => document.getElementById(id);

let options = null;
let chosen = null; // {file, name}
let running = false; // from sending until the job has ended: progress is shown, and no other image can be restored
let job = null; // id of the running job, once its image is sent
let shown = null; // {id, name} of the job whose result is shown
let choices = 0; // counts choices, so that an example that loads slowly does not replace a later one

// --- requests ---

class UserError extends Error {} // its message is shown on the page

async function request(address, settings = {}) {
  try {
    return await fetch(address, settings);
  } catch {
    throw new UserError("The server does not answer. Is it still running?");
  }
}

async function requestJson(address, settings = {}) {
  const response = await request(address, settings);
  const content = response.status === 204 ? null : await response.json().catch(() => null);
  if (!response.ok) {
    throw Object.assign(new UserError(content?.error ?? `The server answered with ${response.status}.`), {
      status: response.status,
    });
  }
  return content;
}

// --- showing ---

function show(...ids) {
  if (running) ids.push("progress");
  for (const id of ["alert", "progress", "empty", "preview", "result"]) byId(id).hidden = !ids.includes(id);
  byId("run").disabled = running;
}

function fail(error) {
  if (!(error instanceof UserError)) console.error(error);
  byId("alert").textContent = error instanceof UserError ? error.message : "The page failed. Reload it.";
  show("alert", ...(byId("preview-image").hidden ? [] : ["preview"]));
  bringIntoView();
}

/** On narrow screens the result is below the form. */
function bringIntoView() {
  if (!matchMedia("(min-width: 801px)").matches) byId("stage").scrollIntoView();
}

function element(tag, properties = {}, ...children) {
  const created = Object.assign(document.createElement(tag), properties);
  created.append(...children);
  return created;
}

function markTiny(image) {
  image.classList.toggle("tiny", image.naturalWidth > 0 && image.naturalWidth <= TINY);
}

function duration(seconds) {
  if (seconds < 1.5) return "about a second";
  if (seconds < 90) return `about ${Math.round(seconds)} seconds`;
  return `about ${Math.round(seconds / 60)} minutes`;
}

function progressText(status) {
  const left = status.seconds === null ? "" : `, ${duration(status.seconds)} left`;
  if (status.state === "waiting") {
    const before = status.ahead === 1 ? "one image is" : `${status.ahead} images are`;
    return status.ahead ? `Waiting: ${before} before yours${left}` : "Starting";
  }
  const step = status.step || "starting";
  const count = status.total ? ` ${status.done} of ${status.total}` : "";
  return step[0].toUpperCase() + step.slice(1) + count + left;
}

function showProgress(status) {
  const text = progressText(status);
  if (byId("progress-text").textContent !== text) byId("progress-text").textContent = text;
  if (status.total) {
    byId("bar").max = status.total;
    byId("bar").value = status.done;
  } else {
    byId("bar").removeAttribute("value");
  }
}

// --- choosing ---

function checkSize(file, name) {
  if (file.size <= options.upload_bytes) return;
  throw new UserError(`${name} is larger than ${options.upload_bytes / 1e6} MB. Scale it down.`);
}

function choose(file, name = file.name) {
  checkSize(file, name);
  chosen = { file, name };
  byId("chosen").textContent = name;
  const image = byId("preview-image");
  URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(file);
  byId("preview-caption").textContent = name;
  show("preview");
}

async function chooseExample(example) {
  const mine = ++choices;
  const response = await request(`/examples/${example.file}`);
  const content = await response.blob();
  if (mine !== choices) return;
  choose(content, example.file);
  document.querySelector(`input[name="kind"][value="${example.kind}"]`).checked = true;
  byId("model").value = example.model;
  showChoice();
}

function kind() {
  return document.querySelector('input[name="kind"]:checked').value;
}

function showChoice() {
  const model = options.models.find(({ name }) => name === byId("model").value);
  byId("model-hint").textContent = model.about;
  const photo = document.querySelector('input[name="kind"][value="photo"]');
  photo.disabled = !model.photos;
  if (photo.disabled && photo.checked) document.querySelector('input[name="kind"][value="face"]').checked = true;
  byId("kind-hint").textContent = (model.colorizes ? COLOUR_KINDS : KINDS)[kind()];
  byId("seed-part").hidden = !model.colorizes;
  byId("references-part").hidden = !model.references;
  byId("references-hint").textContent = `Up to ${model.references} other images of the same thing or person.`;
  byId("run").textContent = model.colorizes ? "Colour" : "Restore";
  byId("fidelity-value").textContent = Number(byId("fidelity").value).toFixed(2);
}

// --- restoring ---

async function restore() {
  if (running) return;
  if (!chosen) throw new UserError("Choose an image first.");
  const { file, name } = chosen;
  const order = new URLSearchParams({ name, model: byId("model").value, kind: kind(), fidelity: byId("fidelity").value });
  if (!byId("seed-part").hidden && byId("seed").value) order.set("seed", byId("seed").value);
  const references = byId("references-part").hidden ? [] : [...byId("references").files];
  const body = new Blob([file, ...references]);
  checkSize(body, references.length ? "The image and its references together" : name);
  for (const reference of references) order.append("references", reference.size);
  byId("progress-text").textContent = "Sending";
  byId("bar").removeAttribute("value");
  byId("cancel").hidden = true;
  let id, status;
  running = true;
  try {
    show("preview");
    bringIntoView();
    const headers = { "Content-Type": "application/octet-stream" };
    ({ id } = await requestJson(`/api/jobs?${order}`, { method: "POST", headers, body }));
    job = id;
    byId("cancel").hidden = false;
    status = await follow(id);
  } finally {
    running = false;
    job = null;
  }
  if (status.state === "failed") throw new UserError(status.error);
  if (status.state === "cancelled") return show("preview");
  return showResult(id, status);
}

/** Show the progress of a job until it has ended; returns its last status. */
async function follow(id) {
  for (;;) {
    const status = await requestJson(`/api/jobs/${id}`).catch((error) => {
      if (error.status) throw error;
      byId("progress-text").textContent = `${error.message} Trying again.`;
      return null;
    });
    if (status && !["waiting", "running"].includes(status.state)) return status;
    if (status) showProgress(status);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

async function showResult(id, { name, result, notices }) {
  const picture = (which) => `/api/jobs/${id}/${which}.png`;
  const comparison = showComparison(picture("before"), picture("result"), result.width, result.height);
  const enlarged = result.from === result.size ? "" : " (before: enlarged by bicubic interpolation)";
  byId("caption").textContent = `${name}: ${result.from} → ${result.size} pixels${enlarged}`;
  shown = { id, name };
  showDownload();
  byId("notices").replaceChildren(...notices.map((line) => element("li", { textContent: line })));
  byId("faces-part").hidden = !result.faces;
  byId("faces-title").textContent = result.faces === 1 ? "The face" : `${result.faces} faces`;
  byId("faces").replaceChildren(...Array.from({ length: result.faces }, (_, number) => face(picture, number, name)));
  show("result");
  try {
    await comparison;
  } catch {
    throw new UserError("The result is gone, or the server does not answer. Restore it again.");
  }
  byId("result").focus({ preventScroll: true });
  bringIntoView();
}

function showDownload() {
  const format = byId("format").value;
  byId("download").href = `/api/jobs/${shown.id}/result.${format}`;
  byId("download").download = `${shown.name.replace(/\.[^.]*$/, "")}-restored.${format}`;
}

function face(picture, number, name) {
  const images = [
    element("img", { src: picture(`crop-${number}`), alt: `Face ${number + 1} before` }),
    element("img", { src: picture(`face-${number}`), alt: `Face ${number + 1} restored` }),
  ];
  const download = `${name.replace(/\.[^.]*$/, "")}-face-${number + 1}.png`;
  const link = element("a", { href: picture(`face-${number}`), download, title: "Download this face" }, ...images);
  return element("li", {}, link);
}

// --- events ---

function guarded(action) {
  return async (event) => {
    try {
      await action(event);
    } catch (error) {
      fail(error);
    }
  };
}

function takeFile(files) {
  choices++;
  if (files.length) choose(files[0], files[0].name || "pasted.png");
}

function listen() {
  byId("file").addEventListener("change", guarded((event) => takeFile(event.target.files)));
  listenForDrops(byId("drop"), guarded(takeFile));
  document.addEventListener("paste", guarded((event) => takeFile(event.clipboardData.files)));
  byId("form").addEventListener("submit", guarded((event) => {
    event.preventDefault();
    return restore();
  }));
  byId("form").addEventListener("input", showChoice);
  byId("format").addEventListener("change", showDownload);
  byId("cancel").addEventListener("click", guarded(async () => {
    if (job) await requestJson(`/api/jobs/${job}`, { method: "DELETE" });
    byId("progress-text").textContent = "Cancelling";
  }));
  // The job of a page that was closed or reloaded is of no use, and other jobs wait for its end.
  addEventListener("pagehide", () => {
    if (job) fetch(`/api/jobs/${job}`, { method: "DELETE", keepalive: true });
  });
  byId("preview-image").addEventListener("load", (event) => {
    markTiny(event.target);
    event.target.hidden = false;
    const { naturalWidth, naturalHeight } = event.target;
    byId("preview-caption").textContent = `${chosen.name}: ${naturalWidth}x${naturalHeight} pixels`;
  });
  byId("preview-image").addEventListener("error", (event) => {
    event.target.hidden = true; // the server reads formats that browsers do not
    byId("preview-caption").textContent = `${chosen.name} cannot be shown here before it is restored.`;
  });
}

async function start() {
  options = await requestJson("/api/options");
  byId("model").replaceChildren(...options.models.map(({ name }) => element("option", { value: name, textContent: name })));
  byId("examples").replaceChildren(...options.examples.map((example) => {
    const image = element("img", { src: `/examples/${example.file}`, alt: example.label });
    image.addEventListener("load", () => markTiny(image));
    const button = element("button", { type: "button", title: example.label }, image);
    button.addEventListener("click", guarded(() => chooseExample(example)));
    return element("li", {}, button);
  }));
  byId("keeping").textContent =
    "Images are sent only to the machine that serves this page, and are deleted there after at most " +
    `${options.keep_minutes} minutes.`;
  showChoice();
  listen();
}

guarded(start)();
