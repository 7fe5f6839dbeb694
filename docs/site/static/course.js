// Formulas, moving pictures that can be stopped, and what scrolls sideways within reach of the keyboard.

const wantsStillness = matchMedia("(prefers-reduced-motion: reduce)").matches;

for (const element of document.querySelectorAll(".formula"))
  katex.render(element.textContent, element, { displayMode: element.tagName === "DIV", throwOnError: false });

function addButton(image) {
  const frame = document.createElement("span");
  frame.className = "clip-frame";
  image.replaceWith(frame);
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Stop";
  const still = document.createElement("canvas");
  still.setAttribute("role", "img");
  still.setAttribute("aria-label", image.alt);
  still.hidden = true;
  button.addEventListener("click", () => {
    const stopping = still.hidden;
    if (stopping) {
      [still.width, still.height] = [image.naturalWidth, image.naturalHeight];
      still.getContext("2d").drawImage(image, 0, 0);
    }
    image.hidden = stopping;
    still.hidden = !stopping;
    button.textContent = stopping ? "Play" : "Stop";
  });
  frame.append(image, still, button);
  if (wantsStillness) image.decode().then(() => button.click());
}
document.querySelectorAll("img.clip").forEach(addButton);

function reachable() {
  for (const element of document.querySelectorAll("article pre, .table-wrapper, div.formula, .cell_output .output")) {
    const scrolls = element.scrollWidth > element.clientWidth + 1;
    if (scrolls) element.tabIndex = 0;
    else element.removeAttribute("tabindex");
  }
}
reachable();
document.fonts.ready.then(reachable);  // formulas grow when their fonts arrive
addEventListener("resize", reachable);

// The theme has two side bars; each says which it is.
document.querySelector(".sidebar-drawer")?.setAttribute("aria-label", "Contents of the site");
document.querySelector(".toc-drawer")?.setAttribute("aria-label", "Contents of this page");
