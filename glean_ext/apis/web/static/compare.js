// The comparison: two pictures over each other, and a range input over both that says where one ends.

const compare = document.getElementById("compare");
const split = document.getElementById("split");
const before = document.getElementById("before");
const after = document.getElementById("after");

function place() {
  compare.style.setProperty("--split", `${split.value}%`);
  split.setAttribute("aria-valuetext", `${Math.round(split.value)} percent original`);
}

split.addEventListener("input", place);

/** Show two pictures of one size, split in the middle; resolves when both are there. */
export async function showComparison(beforeUrl, afterUrl, width, height) {
  compare.style.setProperty("--aspect", `${width} / ${height}`);
  before.src = beforeUrl;
  after.src = afterUrl;
  split.value = 50;
  place();
  await Promise.all([before.decode(), after.decode()]);
}
