// The comparison: two pictures over each other, and a split that the pointer or, by a hidden range input, keys move.

const compare = document.getElementById("compare");
const split = document.getElementById("split");
const before = document.getElementById("before");
const after = document.getElementById("after");

function place() {
  compare.style.setProperty("--split", `${split.value}%`);
  split.setAttribute("aria-valuetext", `${Math.round(split.value)} percent original`);
}

function follow(event) {
  const box = compare.getBoundingClientRect();
  split.value = (100 * (event.clientX - box.left)) / box.width;
  place();
}

split.addEventListener("input", place);

// Range inputs alone will not do: on some phones only their thumb can be moved.
compare.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  event.preventDefault();
  compare.setPointerCapture(event.pointerId);
  split.focus({ preventScroll: true });
  follow(event);
});
compare.addEventListener("pointermove", (event) => {
  if (compare.hasPointerCapture(event.pointerId)) follow(event);
});

/** Show two pictures of one size, split in the middle; resolves when both are there. */
export async function showComparison(beforeUrl, afterUrl, width, height) {
  compare.style.setProperty("--aspect", `${width} / ${height}`);
  before.src = beforeUrl;
  after.src = afterUrl;
  split.value = 50;
  place();
  await Promise.all([before.decode(), after.decode()]);
}
