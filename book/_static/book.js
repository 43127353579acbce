// What the pages need beyond the theme: boxes that scroll can be focused, references show their target.
"use strict";

// A box that scrolls sideways takes the keyboard's focus, or its right end would be reserved for a mouse.
function focusableBoxes() {
  const boxes = "mjx-container[display=true], .highlight pre, .cell_output pre, .pst-scrollable-table-container, .output.text_html";
  document.querySelectorAll(boxes).forEach((box) => {
    const wide = box.scrollWidth > box.clientWidth + 1;
    box.classList.toggle("scrolls", wide);
    if (wide) {
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", (box.matches("mjx-container") ? "Formula" : box.matches("pre") ? "Code" : "Table") + ", scrolls sideways");
    } else if (box.getAttribute("role") === "group") {
      ["tabindex", "role", "aria-label"].forEach((name) => box.removeAttribute(name));
    }
  });
}

// Repairs of the theme: names that contradict the visible text, parts outside landmarks, a scroll spy on nothing.
function repairTheme() {
  document.querySelectorAll(".search-button-field, details.hide > summary").forEach((e) => e.removeAttribute("aria-label"));
  document.querySelectorAll(".citation-list, .citation").forEach((e) => e.removeAttribute("role"));
  document.querySelectorAll(".bd-sidebar-primary").forEach((side) => {
    side.setAttribute("role", "region");
    side.setAttribute("aria-label", "Book");
  });
  // Without a list of sections the spy watches every link of the page and stumbles over the colons of labels.
  const contents = document.querySelector(".bd-sidebar-secondary nav.page-toc, .bd-sidebar-secondary nav.bd-toc-nav");
  if (contents) contents.classList.add("bd-toc-nav");
  else document.body.removeAttribute("data-bs-spy");
}

// Cards: an equation, theorem, figure or exercise is shown beside a reference to it, by pointer and by keyboard.
const cards = {
  targets: "a.reference.internal[href*='#']",
  shown: "div.math, figure, div.proof, div.admonition.exercise, div.equation",
  pages: new Map(),
  card: null,
  link: null,
  timer: 0,

  async find(link) {
    const url = new URL(link.href);
    const id = decodeURIComponent(url.hash.slice(1));
    url.hash = "";
    const here = new URL(location.href);
    here.hash = "";
    let page = document;
    if (url.href !== here.href) {
      if (!this.pages.has(url.href)) {
        const parse = (text) => new DOMParser().parseFromString(text, "text/html");
        this.pages.set(url.href, fetch(url).then((r) => r.text()).then(parse));
      }
      page = await this.pages.get(url.href);
    }
    const target = page.getElementById(id);
    const box = target?.closest(this.shown) ?? target?.querySelector(this.shown);
    return box?.closest("section") === target?.closest("section") ? { box, base: url } : {};
  },

  async show(link) {
    if (this.link === link) return;
    this.hide();
    this.link = link;
    const { box, base } = await this.find(link).catch(() => ({}));
    if (!box || this.link !== link) return;
    const copy = box.cloneNode(true);
    copy.removeAttribute("id");
    copy.querySelectorAll("[id]").forEach((e) => e.removeAttribute("id"));
    copy.querySelectorAll("[tabindex]").forEach((e) => e.removeAttribute("tabindex"));
    copy.querySelectorAll(".headerlink, .equation-badge").forEach((e) => e.remove());
    copy.querySelectorAll("a").forEach((a) => a.replaceWith(...a.childNodes));
    copy.querySelectorAll("img").forEach((img) => (img.src = new URL(img.getAttribute("src"), base)));
    const card = document.createElement("div");
    card.id = "book-card";
    card.className = "book-card";
    card.setAttribute("role", "tooltip");
    card.style.visibility = "hidden"; // until its formulas are set and its place is known
    card.append(copy);
    document.body.append(card);
    card.addEventListener("pointerenter", () => clearTimeout(this.timer));
    card.addEventListener("pointerleave", () => this.later(() => this.hide(), 200));
    this.card = card;
    if (!copy.querySelector("mjx-container")) await window.MathJax?.typesetPromise?.([card]);
    if (this.card !== card) return;
    link.setAttribute("aria-describedby", "book-card");
    const at = link.getBoundingClientRect();
    const size = card.getBoundingClientRect();
    const left = Math.max(16, Math.min(at.left, document.documentElement.clientWidth - size.width - 16));
    const above = at.top > size.height + 24;
    card.style.left = `${left + scrollX}px`;
    card.style.visibility = "";
    card.style.top = `${scrollY + (above ? at.top - size.height - 8 : at.bottom + 8)}px`;
  },

  hide() {
    clearTimeout(this.timer);
    this.link?.removeAttribute("aria-describedby");
    this.card?.remove();
    this.card = this.link = null;
  },

  later(act, wait) {
    clearTimeout(this.timer);
    this.timer = setTimeout(act, wait);
  },

  start() {
    document.querySelectorAll(`.bd-article :is(${this.targets})`).forEach((link) => {
      link.removeAttribute("title");
      link.addEventListener("pointerenter", (e) => e.pointerType !== "touch" && this.later(() => this.show(link), 150));
      link.addEventListener("pointerleave", () => this.later(() => this.hide(), 200));
      link.addEventListener("focus", () => link.matches(":focus-visible") && this.show(link));
      link.addEventListener("blur", () => this.hide());
    });
    document.addEventListener("keydown", (e) => e.key === "Escape" && this.hide());
  },
};

document.addEventListener("DOMContentLoaded", () => {
  repairTheme();
  cards.start();
  addEventListener("resize", focusableBoxes);
});
addEventListener("load", () => Promise.resolve(window.MathJax?.startup?.promise).then(focusableBoxes));
