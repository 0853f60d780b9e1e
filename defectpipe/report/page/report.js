"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);
  const cards = byId("cards"), rows = byId("rows"), zoom = byId("zoom"), stage = zoom.querySelector(".stage");

  // Layers: the switches in the bar and in the zoomed view go together.
  function switchLayer(key, on) {
    for (const layer of all(".layer")) if (layer.dataset.layer === key) layer.classList.toggle("off", !on);
    for (const button of all(".switch")) if (button.dataset.switch === key) button.setAttribute("aria-pressed", String(on));
  }
  for (const button of all(".switch")) {
    switchLayer(button.dataset.switch, button.getAttribute("aria-pressed") === "true");
    button.addEventListener("click", () => switchLayer(button.dataset.switch, button.getAttribute("aria-pressed") !== "true"));
  }

  // Order: what is unknown goes last, either way round.
  function compare(key, falling) {
    const asText = key === "name" || key === "status";
    return (a, b) => {
      const x = a.dataset[key], y = b.dataset[key];
      if (x === y) return Number(a.dataset.number) - Number(b.dataset.number);
      if (x === "" || y === "") return x === "" ? 1 : -1;
      const order = asText ? (x < y ? -1 : 1) : Number(x) - Number(y);
      return falling ? -order : order;
    };
  }
  function sortInto(parent, children, key, falling) {
    children.sort(compare(key, falling));
    parent.append(...children);
  }

  const order = byId("order");
  if (order) order.addEventListener("change", () => {
    sortInto(cards, all(".card", cards), order.value, "falling" in order.selectedOptions[0].dataset);
  });
  for (const button of all("th[data-sort] button", rows)) {
    button.addEventListener("click", () => {
      const head = button.closest("th"), falling = head.getAttribute("aria-sort") === "ascending";
      for (const other of all("th[aria-sort]", rows)) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      sortInto(rows.tBodies[0], [...rows.tBodies[0].rows], head.dataset.sort, falling);
    });
  }

  // Filter: the gallery and the table show the same images.
  const filter = byId("filter"), status = byId("status"), shown = byId("shown");
  function applyFilter() {
    const wanted = filter.value.trim().toLowerCase();
    const matches = (one) => one.dataset.name.toLowerCase().includes(wanted) && (!status.value || one.dataset.status === status.value);
    const counts = [all(".card", cards), [...rows.tBodies[0].rows]].map((ones) => {
      let n = 0;
      for (const one of ones) {
        const visible = matches(one);
        one.classList.toggle("hidden", !visible);
        n += visible;
      }
      return n;
    });
    shown.textContent = wanted || status.value ? counts[0] + " pictures, " + counts[1] + " rows" : "";
  }
  if (filter) {
    filter.addEventListener("input", applyFilter);
    status.addEventListener("change", applyFilter);
  }

  // A bar's loops: copies of the rows that the gallery has, the smallest first, each with the way back to its own.
  function listLoops(bar) {
    if (bar.querySelector("table")) return;
    const { low, high, n, scored } = bar.dataset, size = (row) => Number(row.dataset.size);
    const within = all(`.card${scored === undefined ? "" : "[data-scored]"} tr[data-size]`, cards || document)
      .filter((row) => size(row) >= Number(low) && size(row) < Number(high)).sort((a, b) => size(a) - size(b));
    if (within.length < Number(n)) bar.querySelector(".listed").textContent = within.length + " of them are listed in this report, all in the file. ";
    if (!within.length) return;
    const cell = (name, content) => Object.assign(document.createElement(name), { textContent: content });
    const table = within[0].closest(".scroll").cloneNode(true);
    table.setAttribute("aria-label", bar.querySelector("h3").textContent);
    const head = table.querySelector("thead tr");
    head.prepend(Object.assign(cell("th", "Image"), { scope: "col", className: "file" }));
    table.querySelector("tbody").replaceChildren(...within.map((row) => {
      const copy = row.cloneNode(true), card = row.closest(".card"), number = copy.querySelector("th");
      const image = Object.assign(cell("td", ""), { className: "file" });
      image.append(Object.assign(cell("a", card.querySelector("h3").textContent), { href: "#" + card.id }));
      number.replaceChildren(Object.assign(cell("a", number.textContent), { href: "#" + row.id }));
      copy.removeAttribute("id");
      delete copy.dataset.size;
      copy.prepend(image);
      return copy;
    }));
    bar.append(table);
  }

  // Links lead into what is folded or filtered away, too.
  function reveal() {
    const target = location.hash.length > 1 && byId(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.classList.contains("bar-loops")) listLoops(target);
    const folded = target.closest("details");
    if (folded) folded.open = true;
    const hidden = target.closest(".hidden");
    if (hidden) { filter.value = status.value = ""; applyFilter(); }
    // What was out of view had only a supposed height: there once more when it has its own.
    const there = () => target.scrollIntoView({ block: target.matches("tr, dd") ? "center" : "start" });
    if (folded || hidden || target.closest(".card")) { there(); requestAnimationFrame(() => requestAnimationFrame(there)); }
  }
  addEventListener("hashchange", reveal);
  reveal();

  // Zoom: a copy of the drawing, of which a part is shown.
  let whole = null, view = null, current = null;
  function show() { stage.firstChild.setAttribute("viewBox", view.join(" ")); }
  function magnify(factor, x = 0.5, y = 0.5) {
    const width = Math.min(whole[2], Math.max(whole[2] / 40, view[2] / factor)), height = width * whole[3] / whole[2];
    place(view[0] + (view[2] - width) * x, view[1] + (view[3] - height) * y, width, height);
  }
  function place(x, y, width = view[2], height = view[3]) {
    const within = (value, from, size, part) => Math.min(Math.max(value, from), from + size - part);
    view = [within(x, whole[0], whole[2], width), within(y, whole[1], whole[3], height), width, height];
    show();
  }
  function open(card) {
    const drawing = card.querySelector("svg.field").cloneNode(true);
    current = card;
    whole = drawing.getAttribute("viewBox").split(" ").map(Number);
    view = [...whole];
    stage.replaceChildren(drawing);
    byId("zoom-name").textContent = card.querySelector("h3").textContent;
    zoom.querySelector(".note").textContent = card.querySelector("dd").textContent + " · " + card.querySelector(".note").textContent;
    if (!zoom.open) zoom.showModal();
    stage.focus();
  }
  function step(by) {
    const visible = all(".card:not(.hidden)", cards).filter((card) => card.querySelector("svg.field"));
    const next = visible[visible.indexOf(current) + by];
    if (next) open(next);
  }
  const acts = {
    in: () => magnify(1.5), out: () => magnify(1 / 1.5), whole: () => { view = [...whole]; show(); },
    previous: () => step(-1), next: () => step(1), close: () => zoom.close(),
  };
  const keys = {
    "+": acts.in, "=": acts.in, "-": acts.out, "0": acts.whole, n: acts.next, p: acts.previous,
    ArrowLeft: () => place(view[0] - view[2] / 8, view[1]), ArrowRight: () => place(view[0] + view[2] / 8, view[1]),
    ArrowUp: () => place(view[0], view[1] - view[3] / 8), ArrowDown: () => place(view[0], view[1] + view[3] / 8),
  };
  for (const picture of all(".picture")) picture.addEventListener("click", (event) => {
    // A loop in the picture leads to its row, the rest of it opens the zoomed view.
    if (!event.target.closest("a")) open(picture.closest(".card"));
  });
  for (const button of all("[data-zoom]")) button.addEventListener("click", acts[button.dataset.zoom]);
  zoom.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  zoom.addEventListener("close", () => {
    stage.replaceChildren();
    if (current) current.querySelector(".open").focus();
  });
  stage.addEventListener("click", (event) => { if (event.target.closest("a") && !moved) zoom.close(); });
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    magnify(event.deltaY < 0 ? 1.2 : 1 / 1.2, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  }, { passive: false });
  let from = null, moved = false;
  stage.addEventListener("pointerdown", (event) => { from = [event.clientX, event.clientY]; moved = false; });
  addEventListener("pointerup", () => { from = null; });
  stage.addEventListener("dragstart", (event) => event.preventDefault());
  stage.addEventListener("pointermove", (event) => {
    if (!from) return;
    const box = stage.getBoundingClientRect(), scale = Math.max(view[2] / box.width, view[3] / box.height);
    const by = [(event.clientX - from[0]) * scale, (event.clientY - from[1]) * scale];
    moved = moved || Math.hypot(event.clientX - from[0], event.clientY - from[1]) > 3;
    if (moved) { from = [event.clientX, event.clientY]; place(view[0] - by[0], view[1] - by[1]); }
  });
})();
