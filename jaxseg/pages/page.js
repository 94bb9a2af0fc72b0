"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (name, properties = {}) => Object.assign(document.createElement(name), properties);

// The theme: as the system, light or dark.
const theme = document.getElementById("theme"), themes = ["", "light", "dark"];
function setTheme(value) {
  if (value) document.documentElement.dataset.theme = value; else delete document.documentElement.dataset.theme;
  theme.textContent = "Theme: " + (value || "as the system");
}
let chosen = "";
try { chosen = localStorage.getItem("jaxseg theme") || ""; } catch (error) { /* a browser that keeps nothing */ }
if (!themes.includes(chosen)) chosen = "";
setTheme(chosen);
theme.hidden = false;
theme.addEventListener("click", () => {
  chosen = themes[(themes.indexOf(chosen) + 1) % themes.length];
  setTheme(chosen);
  try { localStorage.setItem("jaxseg theme", chosen); } catch (error) { /* as above */ }
});

// Tables: sorted by their heads, filtered by a field.
for (const box of all(".table")) {
  const body = box.querySelector("tbody"), rows = all("tr", body), heads = all("thead th", box);
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending" || (!head.hasAttribute("aria-sort") && head.classList.contains("n"));
      const numeric = head.classList.contains("n"), order = down ? -1 : 1;
      const value = (row) => row.children[column].dataset.v;
      rows.sort((a, b) => {
        const u = value(a), v = value(b);
        if (numeric && (u === "" || v === "")) return (u === "") - (v === "");
        return order * (numeric ? Number(u) - Number(v) : u.localeCompare(v, undefined, { numeric: true }));
      });
      body.append(...rows);
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
    });
  });
  const field = box.querySelector("input[type=search]");
  if (field) field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    box.querySelector("[role=status]").textContent = rows.filter((row) => !row.hidden).length + " of " + rows.length + " rows";
  });
}

// Charts: the values at the pointer, or by the arrow keys; a legend whose buttons hide and show.
for (const figure of all("[data-chart]")) {
  const data = JSON.parse(figure.dataset.chart), svg = figure.querySelector("svg[tabindex]");
  const output = figure.querySelector("output"), cursor = figure.querySelector(".cursor");
  const visible = (s) => !figure.querySelector('g[data-series="' + s + '"]').classList.contains("off");
  let at = null;
  function places() {
    const found = data.series.flatMap((each, s) => (visible(s) ? each.at.map(([x, y], i) => ({ s, i, x, y })) : []));
    return found.sort((a, b) => a.x - b.x || a.y - b.y);
  }
  function text(p) {
    const each = data.series[p.s], label = each.labels.length ? each.labels[p.i] + ", " : "";
    return each.name + " " + label;
  }
  function show(p) {
    at = p;
    cursor.setAttribute("x1", p.x); cursor.setAttribute("x2", p.x); cursor.setAttribute("visibility", "visible");
    const x = data.x + " " + data.series[p.s].x[p.i];
    if (data.free) { output.textContent = text(p) + x + ", " + data.y + " " + data.series[p.s].y[p.i]; return; }
    const same = data.series.flatMap((each, s) => {
      if (!visible(s)) return [];
      const i = each.at.findIndex(([px]) => Math.abs(px - p.x) < 0.06);
      return i < 0 ? [] : [text({ s, i }) + each.y[i]];
    });
    output.textContent = x + ": " + same.join("; ");
  }
  function point(event) {
    const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
    const x = ((event.clientX - box.left) / box.width) * view.width, y = ((event.clientY - box.top) / box.height) * view.height;
    const far = (p) => (data.free ? Math.hypot(p.x - x, p.y - y) : Math.abs(p.x - x));
    const found = places();
    if (found.length) show(found.reduce((best, p) => (far(p) < far(best) ? p : best)));
  }
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
  svg.addEventListener("pointerleave", () => { if (document.activeElement !== svg) cursor.setAttribute("visibility", "hidden"); });
  svg.addEventListener("blur", () => cursor.setAttribute("visibility", "hidden"));
  svg.addEventListener("keydown", (event) => {
    const found = places(), ends = { Home: 0, End: found.length - 1 };
    if (!found.length) return;
    let i = at ? found.findIndex((p) => p.s === at.s && p.i === at.i) : -1;
    if (event.key in ends) i = ends[event.key];
    else if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      const step = event.key === "ArrowRight" ? 1 : -1, from = i < 0 ? null : found[i].x;
      do i += step; while (!data.free && from !== null && found[i] && Math.abs(found[i].x - from) < 0.06);
      i = Math.max(0, Math.min(found.length - 1, i));
    } else return;
    event.preventDefault();
    show(found[i]);
  });
  for (const button of all(".legend button", figure)) button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    figure.querySelector('g[data-series="' + button.dataset.series + '"]').classList.toggle("off", !on);
  });
}

// Images under layers.
for (const gallery of all(".gallery")) {
  const get = (name) => gallery.querySelector("." + name), cards = all("article", gallery), grid = get("cards");
  const tools = Object.fromEntries(["group", "of-class", "order", "named", "left", "cut", "right", "opacity", "grey"].map((n) => [n, get(n === "grey" ? "tools .grey" : "tools ." + n)]));
  const dialog = gallery.querySelector("dialog"), groupNames = new Map([...tools.group.options].map((o) => [o.value, o.text]));
  let current = null;
  function layers() {
    gallery.style.setProperty("--cut", tools.cut.value + "%");
    gallery.style.setProperty("--opacity", String(tools.opacity.value / 100));
    gallery.classList.toggle("grey", tools.grey.checked);
    gallery.classList.toggle("whole", tools.cut.value === "0" || tools.cut.value === "100" || tools.left.value === tools.right.value);
    for (const layer of all(".layer", gallery)) {
      layer.classList.toggle("left", layer.dataset.layer === tools.left.value);
      layer.classList.toggle("right", layer.dataset.layer === tools.right.value);
    }
  }
  function filter() {
    const named = tools.named.value.toLowerCase(), group = tools.group.value, held = tools["of-class"].value;
    for (const card of cards) {
      const has = (list, value) => card.dataset[list].split(" ").includes(value);
      card.hidden = !((!group || has("groups", group)) && (!held || has("classes", held)) && card.querySelector("h3").textContent.toLowerCase().includes(named));
    }
    const count = cards.filter((card) => !card.hidden).length;
    get("none").hidden = count > 0;
    get("count").textContent = count + " of " + cards.length + " images";
  }
  function sort() {
    const value = (card) => { const v = card.dataset.sorts.split(" ")[tools.order.value]; return v ? Number(v) : Infinity; };
    grid.append(...cards.sort((a, b) => value(a) - value(b)));
  }
  function enlarge(card) {
    current = card;
    dialog.querySelector("h3").textContent = card.querySelector("h3").textContent;
    const copy = card.querySelector(".picture").cloneNode(true), div = make("div", { className: "picture" }), base = copy.querySelector("img");
    div.append(...copy.childNodes);
    div.style.setProperty("--ratio", String((card.querySelector("img").naturalWidth || 1) / (card.querySelector("img").naturalHeight || 1)));
    dialog.lastElementChild.replaceChildren(div, ...all("p", card).map((p) => p.cloneNode(true)));
    layers();
    if (!dialog.open) dialog.showModal();
  }
  function go(step) {
    const seen = cards.filter((card) => !card.hidden), i = seen.indexOf(current);
    if (seen.length) enlarge(seen[(i + step + seen.length) % seen.length]);
  }
  for (const card of cards) card.querySelector(".picture").addEventListener("click", () => enlarge(card));
  dialog.addEventListener("close", () => { if (current) current.querySelector(".picture").focus(); });
  dialog.querySelector(".before").addEventListener("click", () => go(-1));
  dialog.querySelector(".next").addEventListener("click", () => go(1));
  gallery.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
    const key = event.key.toLowerCase(), cut = { l: "100", r: "0", b: "50" };
    if (key in cut) tools.cut.value = cut[key];
    else if (key === "m") tools.opacity.value = Number(tools.opacity.value) ? "0" : "60";
    else if (dialog.open && key === "arrowright") go(1);
    else if (dialog.open && key === "arrowleft") go(-1);
    else return;
    event.preventDefault();
    layers();
  });
  for (const name of ["left", "right", "cut", "opacity", "grey"]) tools[name].addEventListener("input", layers);
  for (const name of ["group", "of-class", "named"]) tools[name].addEventListener("input", filter);
  tools.order.addEventListener("input", sort);
  gallery.showGroup = (value) => { if (groupNames.has(value)) { tools.group.value = value; filter(); } };
  layers(); sort(); filter();
}
// A link to an image shows it, whatever the filter says.
addEventListener("hashchange", () => {
  const card = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (card && card.matches("article")) { card.hidden = false; card.scrollIntoView(); card.focus(); }
});
