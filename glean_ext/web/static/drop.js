// Files that are dropped anywhere on the page.

/** Mark `target` while something is dragged over the page, and give what is dropped to `take(files)`. */
export function listenForDrops(target, take) {
  for (const type of ["dragenter", "dragover"]) {
    document.addEventListener(type, (event) => {
      event.preventDefault();
      target.classList.add("over");
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) target.classList.remove("over"); // else another element of the page is entered
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    target.classList.remove("over");
    take(event.dataTransfer.files);
  });
}
