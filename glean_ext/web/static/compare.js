// The comparison: two pictures on top of each other, and a split that the pointer moves, or keys through a hidden range
// input.

const compare = document.getElementById("compare");

function add(tag, attributes, text = "") {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return compare.appendChild(element);
}

const before = add("img", { class: "before", id: "before", alt: "Before", draggable: "false" });
const after = add("img", { class: "after", id: "after", alt: "After", draggable: "false" });
add("span", { class: "tag left", "aria-hidden": "true" }, "Before");
add("span", { class: "tag right", "aria-hidden": "true" }, "After");
add("span", { class: "handle", "aria-hidden": "true" });
const label = "Comparison: share of the original";
const split = add("input", { type: "range", id: "split", min: 0, max: 100, step: 0.5, value: 50, "aria-label": label });

function applySplit() {
  compare.style.setProperty("--split", `${split.value}%`);
  split.setAttribute("aria-valuetext", `${Math.round(split.value)} percent original`);
}

function moveSplit(event) {
  const box = compare.getBoundingClientRect();
  split.value = (100 * (event.clientX - box.left)) / box.width;
  applySplit();
}

split.addEventListener("input", applySplit);

// A range input alone is not enough: on some phones only its thumb can be moved.
compare.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  event.preventDefault();
  compare.setPointerCapture(event.pointerId);
  split.focus({ preventScroll: true });
  moveSplit(event);
});
compare.addEventListener("pointermove", (event) => {
  if (compare.hasPointerCapture(event.pointerId)) moveSplit(event);
});

/** Show two pictures of the same size, split in the middle; resolves when both are loaded. */
export async function showComparison(beforeUrl, afterUrl, width, height) {
  compare.style.setProperty("--aspect", `${width} / ${height}`);
  before.src = beforeUrl;
  after.src = afterUrl;
  split.value = 50;
  applySplit();
  await Promise.all([before.decode(), after.decode()]);
}
