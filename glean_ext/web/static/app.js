// The page: choose an image, send it, follow the job, show what came of it. Whatever has a name is set as text.

import { showComparison } from "/compare.js";

const POLL = 400; // milliseconds
const TINY = 64; // pixels; smaller pictures are shown with their pixels
const KINDS = {
  face: "The whole image is given to the model.",
  photo: "Every face is found, restored and put back; the rest stays as it is.",
};
const byId = (id) => document.getElementById(id);

let options = null;
let chosen = null; // {file, name}
let running = false; // from sending until the job has ended: progress is shown, and nothing else can be restored
let job = null; // id of the one that runs, once it is sent
let example = 0; // counts clicks, so that a slow example does not replace a later choice

// --- asking the server ---

class Told extends Error {} // a line for the reader

async function answer(address, request = {}) {
  try {
    return await fetch(address, request);
  } catch {
    throw new Told("The server does not answer. Is it still running?");
  }
}

async function ask(address, request = {}) {
  const response = await answer(address, request);
  const content = response.status === 204 ? null : await response.json().catch(() => null);
  if (!response.ok) {
    throw Object.assign(new Told(content?.error ?? `The server answered with ${response.status}.`), {
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
  if (!(error instanceof Told)) console.error(error);
  byId("alert").textContent = error instanceof Told ? error.message : "The page failed. Reload it.";
  show("alert", ...(byId("preview-image").hidden ? [] : ["preview"]));
  bringIntoView();
}

/** On narrow screens the result is below the form. */
function bringIntoView() {
  if (!matchMedia("(min-width: 801px)").matches) byId("stage").scrollIntoView();
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
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

function choose(file, name = file.name) {
  if (file.size > options.upload_bytes) {
    throw new Told(`${name} is larger than ${options.upload_bytes / 1e6} MB. Scale it down.`);
  }
  chosen = { file, name };
  byId("chosen").textContent = name;
  const image = byId("preview-image");
  URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(file);
  byId("preview-caption").textContent = name;
  show("preview");
}

async function chooseExample(one) {
  const mine = ++example;
  const response = await answer(`/examples/${one.file}`);
  const content = await response.blob();
  if (mine !== example) return;
  choose(content, one.file);
  document.querySelector(`input[name="kind"][value="${one.kind}"]`).checked = true;
  byId("model").value = one.model;
  tellChoice();
}

function kind() {
  return document.querySelector('input[name="kind"]:checked').value;
}

function tellChoice() {
  const model = options.models.find((one) => one.name === byId("model").value);
  byId("model-hint").textContent = model.about;
  const photo = document.querySelector('input[name="kind"][value="photo"]');
  photo.disabled = !model.photos;
  if (photo.disabled && photo.checked) document.querySelector('input[name="kind"][value="face"]').checked = true;
  byId("kind-hint").textContent = KINDS[kind()];
  byId("fidelity-value").textContent = Number(byId("fidelity").value).toFixed(2);
}

// --- restoring ---

async function restore() {
  if (running) return;
  if (!chosen) throw new Told("Choose an image first.");
  const { file, name } = chosen;
  const order = new URLSearchParams({ name, model: byId("model").value, kind: kind(), fidelity: byId("fidelity").value });
  byId("progress-text").textContent = "Sending";
  byId("bar").removeAttribute("value");
  byId("cancel").hidden = true;
  let id, status;
  running = true;
  try {
    show("preview");
    bringIntoView();
    const headers = { "Content-Type": "application/octet-stream" };
    ({ id } = await ask(`/api/jobs?${order}`, { method: "POST", headers, body: file }));
    job = id;
    byId("cancel").hidden = false;
    status = await follow(id);
  } finally {
    running = false;
    job = null;
  }
  if (status.state === "failed") throw new Told(status.error);
  if (status.state === "cancelled") return show("preview");
  return showResult(id, status);
}

/** The status with which a job ends. */
async function follow(id) {
  for (;;) {
    const status = await ask(`/api/jobs/${id}`).catch((error) => {
      if (error.status) throw error;
      byId("progress-text").textContent = `${error.message} Trying again.`;
      return null;
    });
    if (status && !["waiting", "running"].includes(status.state)) return status;
    if (status) showProgress(status);
    await new Promise((resolve) => setTimeout(resolve, POLL));
  }
}

async function showResult(id, { name, result, notices }) {
  const picture = (which) => `/api/jobs/${id}/${which}.png`;
  const shown = showComparison(picture("before"), picture("result"), result.width, result.height);
  const enlarged = result.from === result.size ? "" : " (before: enlarged by bicubic interpolation)";
  byId("caption").textContent = `${name}: ${result.from} → ${result.size} pixels${enlarged}`;
  byId("download").href = picture("result");
  byId("download").download = `${name.replace(/\.[^.]*$/, "")}-restored.png`;
  byId("notices").replaceChildren(...notices.map((line) => element("li", { textContent: line })));
  byId("faces-part").hidden = !result.faces;
  byId("faces-title").textContent = result.faces === 1 ? "The face" : `${result.faces} faces`;
  byId("faces").replaceChildren(...Array.from({ length: result.faces }, (_, number) => face(picture, number, name)));
  show("result");
  try {
    await shown;
  } catch {
    throw new Told("The result is gone, or the server does not answer. Restore it again.");
  }
  byId("result").focus({ preventScroll: true });
  bringIntoView();
}

function face(picture, number, name) {
  const images = [
    element("img", { src: picture(`crop-${number}`), alt: `Face ${number + 1} as it was` }),
    element("img", { src: picture(`face-${number}`), alt: `Face ${number + 1} restored` }),
  ];
  const download = `${name.replace(/\.[^.]*$/, "")}-face-${number + 1}.png`;
  const link = element("a", { href: picture(`face-${number}`), download, title: "Download this face" }, ...images);
  return element("li", {}, link);
}

// --- wiring ---

function guarded(act) {
  return async (event) => {
    try {
      await act(event);
    } catch (error) {
      fail(error);
    }
  };
}

function takeFile(files) {
  example++;
  if (files.length) choose(files[0], files[0].name || "pasted.png");
}

function listen() {
  const drop = byId("drop");
  byId("file").addEventListener("change", guarded((event) => takeFile(event.target.files)));
  for (const type of ["dragenter", "dragover"]) {
    document.addEventListener(type, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.classList.remove("over");
  });
  document.addEventListener("drop", guarded((event) => {
    event.preventDefault();
    drop.classList.remove("over");
    takeFile(event.dataTransfer.files);
  }));
  document.addEventListener("paste", guarded((event) => takeFile(event.clipboardData.files)));
  byId("form").addEventListener("submit", guarded((event) => {
    event.preventDefault();
    return restore();
  }));
  byId("form").addEventListener("input", tellChoice);
  byId("cancel").addEventListener("click", guarded(async () => {
    if (job) await ask(`/api/jobs/${job}`, { method: "DELETE" });
    byId("progress-text").textContent = "Cancelling";
  }));
  // Nobody can ask for a job of a page that was closed or reloaded, and others wait behind it.
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
  options = await ask("/api/options");
  byId("model").replaceChildren(...options.models.map(({ name }) => element("option", { value: name, textContent: name })));
  byId("examples").replaceChildren(...options.examples.map((one) => {
    const image = element("img", { src: `/examples/${one.file}`, alt: one.label });
    image.addEventListener("load", () => markTiny(image));
    const button = element("button", { type: "button", title: one.label }, image);
    button.addEventListener("click", guarded(() => chooseExample(one)));
    return element("li", {}, button);
  }));
  byId("keeping").textContent =
    "Images go to the machine that serves this page and nowhere else, and are deleted there after " +
    `${options.keep_minutes} minutes at most.`;
  tellChoice();
  listen();
}

guarded(start)();
