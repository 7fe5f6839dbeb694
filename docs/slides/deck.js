// Breaks the chapter's slides where they are full, and starts the deck.
//
// A slide of the notebook is a list of blocks: a heading, a paragraph, code, a picture. Heights are measured in this
// browser, with its fonts. Among all ways to break the list into slides that hold everything, the cheapest is taken:
// few slides, evenly full, pictures large and beside the words about them.

const WIDTH = 1168;
const HEIGHT = 630; // between the upper padding and the slide's number
const GAP = 16;
const RUNNING = 40; // the line that repeats the heading on a slide that goes on
const HEADING = 66; // a heading and the gap below it
const SMALLEST = 0.66; // of its best size: a picture may shrink to this beside its words
const LEGIBLE = 0.71; // of its own pixels: there the letters of our figures have 14 pixels
const TALLEST = 570;
const LARGEST = 1.9; // times its own pixels

const make = (tag, name, text = "") => {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = text;
  return element;
};

function setFormulas() {
  for (const element of document.querySelectorAll(".formula"))
    katex.render(element.textContent, element, { displayMode: element.tagName === "DIV", throwOnError: false });
}

// Each line of code, and of what it prints, stands alone: what does not fit goes on four characters further in than
// the line began.
function wrapCode() {
  for (const pre of document.querySelectorAll(".code pre, pre.output")) {
    const lines = pre.innerHTML.replace(/^<span><\/span>/, "").replace(/\n$/, "").split("\n");
    pre.innerHTML = lines.map((line) => `<span class="line">${line}</span>`).join("");
    for (const line of pre.children) {
      const hang = line.textContent.search(/\S|$/) + 4;
      line.style.cssText = `padding-left:${hang}ch;text-indent:-${hang}ch`;
    }
  }
}

// A command in a sentence breaks between its words only, not at its dashes.
function keepWords() {
  for (const code of document.querySelectorAll("p code, li code"))
    code.innerHTML = code.innerHTML.replace(/[^\s<>]+-[^\s<>]*/g, '<span class="word">$&</span>');
}

// The blocks of a slide, flat: what a cell's wrapper holds, with the wrapper's step (a "fragment") kept.
function blocksOf(slide) {
  const blocks = [];
  for (const wrapper of [...slide.children].filter((child) => child.tagName !== "ASIDE")) {
    const parts = wrapper.firstElementChild?.matches(".code, .result, img, pre")
      ? unpack(wrapper.firstElementChild)
      : [...wrapper.children];
    if (wrapper.classList.contains("fragment")) for (const part of parts) part.dataset.step = blocks.length;
    blocks.push(...parts);
  }
  return blocks;
}

// A result made of several things, such as the questions of a quiz, may be broken between them.
function unpack(element) {
  if (!element.matches(".result") || element.children.length < 2) return [element];
  return [...element.children].map((child) => {
    const part = make("div", "result");
    part.append(child);
    return part;
  });
}

function bestSize(image) {
  const [w, h] = [+image.getAttribute("width"), +image.getAttribute("height")];
  const scale = Math.min(LARGEST, WIDTH / w, TALLEST / h);
  return [w * scale, h * scale];
}

function measure(block) {
  const image = block.matches("img") ? block : null;
  if (image) {
    const [width, height] = bestSize(image);
    const smallest = Math.min(1, Math.max(SMALLEST, (LEGIBLE * image.getAttribute("width")) / width));
    return { block, image, width, height, smallest, flexible: true };
  }
  return { block, height: block.getBoundingClientRect().height, heading: /^H\d$/.test(block.tagName) };
}

// Lists, tables and code that alone are higher than a slide are cut between their rows.
function cutTall(block, room) {
  if (block.getBoundingClientRect().height <= room) return [block];
  const rows = [...block.querySelectorAll(":scope > li, :scope tbody > tr, :scope .line")];
  if (rows.length < 2) return [block];
  const rest = block.cloneNode(true);
  const copies = [...rest.querySelectorAll(":scope > li, :scope tbody > tr, :scope .line")];
  const top = block.getBoundingClientRect().top;
  const edge = block.getBoundingClientRect().bottom - rows.at(-1).getBoundingClientRect().bottom;
  let kept = rows.findIndex((row) => row.getBoundingClientRect().bottom - top + edge > room);
  if (kept < 0) return [block];
  kept = Math.max(1, kept);
  rows.slice(kept).forEach((row) => row.remove());
  copies.slice(0, kept).forEach((row) => row.remove());
  if (rest.tagName === "OL") rest.start = (block.start || 1) + kept;
  block.after(rest);
  return [block, ...cutTall(rest, room)];
}

const about = (block) => /^(What to see|The symptom)/.test(block.textContent);

// What it costs to put items i to j - 1 on one slide, and how far its pictures shrink; null if they do not fit.
function price(items, i, j) {
  const page = items.slice(i, j);
  const room = HEIGHT - (items[i].heading ? 0 : RUNNING) - GAP * (page.length - 1);
  const pictures = page.filter((x) => x.flexible);
  const fixed = page.filter((x) => !x.flexible).reduce((sum, x) => sum + x.height, 0);
  const wanted = pictures.reduce((sum, x) => sum + x.height, 0);
  const scale = wanted ? Math.min(1, (room - fixed) / wanted) : 1;
  const fits = wanted ? scale >= Math.max(...pictures.map((x) => x.smallest)) : fixed <= room;
  if (!fits && page.length > 1) return null;
  const empty = Math.max(0, 1 - (fixed + wanted * scale) / room);
  let cost = 1 + 0.6 * empty ** 2 + (empty > 0.75 ? 0.5 : 0) + 0.8 * (1 - scale);
  const [last, next] = [page.at(-1), items[j]];
  if (next && last.heading) cost += 5; // only where nothing else is possible
  if (next && last.flexible && about(next.block)) cost += 1;
  if (next && last.block.matches(".code") && (next.flexible || next.block.matches(".output, .result"))) cost += 0.5;
  if (next && last.block.matches("p") && next.block.matches("div.math, ul, ol, table")) cost += 0.3;
  if (next && page.at(-2)?.heading && last.block.matches("p")) cost += 0.5; // a heading belongs to more than a line
  if (next && last.block.textContent.trim().endsWith(":")) cost += 0.4;
  if (next && next.block.querySelector("details")) cost += last.block.querySelector("details") ? 1.5 : 3; // a quiz
  return { cost, scale: Math.max(scale, 0.1) };
}

function cheapest(items) {
  const best = [{ cost: 0 }];
  for (let j = 1; j <= items.length; j++) {
    for (let i = j - 1; i >= 0; i--) {
      const page = best[i] && price(items, i, j);
      if (page && (!best[j] || best[i].cost + page.cost < best[j].cost))
        best[j] = { cost: best[i].cost + page.cost, from: i, scale: page.scale };
    }
  }
  const pages = [];
  for (let j = items.length; j > 0; j = best[j].from) pages.unshift([best[j].from, j, best[j].scale]);
  return pages;
}

function paginate(slide, heading) {
  const notes = slide.querySelector(":scope > aside.notes");
  const blocks = blocksOf(slide);
  slide.replaceChildren(...blocks);
  slide.classList.add("leaf");
  const cut = blocks.flatMap((block) => cutTall(block, HEIGHT - HEADING));
  const items = cut.map(measure);
  const pages = cheapest(items);
  const leaves = pages.map(([i, j, scale]) => {
    const leaf = make("section", "leaf");
    if (!items[i].heading && heading) leaf.append(make("p", "running", heading));
    for (const item of items.slice(i, j)) {
      if (item.heading) heading = item.block.textContent;
      if (item.image) {
        item.image.style.width = `${item.width * scale}px`;
        item.image.style.height = `${item.height * scale}px`;
      }
      // What opens a slide is there at once; the blocks of one step come together.
      const step = item.block.dataset.step;
      if (step !== undefined && item !== items[i]) {
        item.block.classList.add("fragment");
        item.block.dataset.fragmentIndex = step;
      }
      leaf.append(item.block);
    }
    if (notes) leaf.append(notes.cloneNode(true));
    return leaf;
  });
  slide.replaceWith(...leaves);
  return heading;
}

// P stops moving pictures: each gives its place to its present frame.
function toggleClips() {
  const frozen = document.querySelectorAll("canvas.frozen");
  for (const canvas of frozen) canvas.replaceWith(canvas.original);
  if (frozen.length) return;
  for (const image of document.querySelectorAll(".present img")) {
    const canvas = make("canvas", "frozen");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext("2d").drawImage(image, 0, 0);
    canvas.style.cssText = image.style.cssText + "display:block;margin:0 auto";
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", image.alt);
    canvas.original = image;
    image.replaceWith(canvas);
  }
}

async function start() {
  setFormulas();
  wrapCode();
  keepWords();
  await document.fonts.ready; // formulas have asked for theirs by now
  const slides = [...document.querySelectorAll(".slides > section > section")];
  slides.reduce((heading, slide) => paginate(slide, heading), "");
  await Reveal.initialize({
    width: 1280,
    height: 720,
    margin: 0,
    center: false,
    hash: true,
    controls: false,
    navigationMode: "linear",
    slideNumber: "c/t",
    transition: "none",
    plugins: [RevealNotes],
    keyboard: { 80: toggleClips },
  });
  document.body.classList.remove("waiting");
}

document.body.classList.add("waiting");
start();
