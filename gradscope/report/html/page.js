// Starts everything: theme, charts as they come into view, tables, copying, printing.

const charts = {};

function startCharts() {
  document.querySelectorAll("figure.chart").forEach(figure => {
    if (DATA[figure.dataset.chart]) charts[figure.dataset.chart] = new Chart(figure);
  });
  const all = Object.values(charts);
  const seen = new IntersectionObserver(entries => entries.filter(e => e.isIntersecting).forEach(e => {
    const chart = charts[e.target.dataset.chart];
    if (!chart.drawn) chart.draw();
    seen.unobserve(e.target);
  }), { rootMargin: "800px 0px" });
  all.forEach(chart => seen.observe(chart.figure));
  let waiting;
  const resized = new ResizeObserver(() => {
    clearTimeout(waiting);
    waiting = setTimeout(() => all.filter(c => c.drawn && c.box.clientWidth !== c.width && !printing).forEach(c => c.draw()), 120);
  });
  all.forEach(chart => resized.observe(chart.box));
}

const redraw = () => Object.values(charts).filter(c => c.drawn).forEach(c => c.draw());

/** auto, light or dark; kept where the browser lets a page keep things. */
function startTheme() {
  const group = document.querySelector(".theme"), root = document.documentElement;
  const set = theme => {
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
    group.querySelectorAll("button").forEach(b => b.setAttribute("aria-pressed", String(b.dataset.themeChoice === theme)));
    redraw();
  };
  const kept = () => { try { return localStorage.getItem("gradscope-theme"); } catch { return null; } };
  const keep = theme => { try { localStorage.setItem("gradscope-theme", theme); } catch { /* not kept */ } };
  group.addEventListener("click", event => {
    const theme = event.target.dataset.themeChoice;
    if (theme) { set(theme); keep(theme); }
  });
  group.hidden = false;
  if (["light", "dark"].includes(kept())) set(kept());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

function startTables() {
  document.querySelectorAll("[data-sortable]").forEach(grid => {
    const table = grid.querySelector("table");
    makeSortable(table);
    makeFilter(grid, table);
  });
  linkHistograms();
}

/** A parameter's name in the table leads to its histogram. */
function linkHistograms() {
  const chart = charts.histograms;
  if (!chart || !chart.select) return;
  const place = new Map(DATA.histograms.map((p, i) => [p.name, i]));
  document.querySelectorAll("#table-parameters tbody th").forEach(cell => {
    const at = place.get(cell.textContent.trim());
    if (at === undefined) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = cell.textContent.trim();
    button.title = "show its histograms";
    cell.replaceChildren(button);
    button.addEventListener("click", () => {
      chart.select.value = String(at);
      chart.view.which = at;
      chart.draw();
      document.getElementById("histograms").scrollIntoView();
      chart.select.focus({ preventScroll: true });
    });
  });
}

function startCopying() {
  document.querySelectorAll(".command").forEach(box => {
    const button = document.createElement("button"), code = box.querySelector("code");
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-label", "Copy the command");
    button.addEventListener("click", async () => {
      const done = await copied(code);
      button.textContent = done ? "Copied" : "Selected";
      document.getElementById("announce").textContent = done ? "copied" : "selected";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    box.append(button);
  });
}

/** A page opened from a file may not be allowed to write to the clipboard: then it is selected. */
async function copied(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(code);
    return false;
  }
}

function startContents() {
  const links = [...document.querySelectorAll("nav a")];
  const sections = links.map(link => document.querySelector(link.getAttribute("href")));
  const mark = () => {
    let at = 0;
    sections.forEach((section, i) => { if (section.getBoundingClientRect().top < innerHeight / 3) at = i; });
    links.forEach((link, i) => i === at ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current"));
  };
  addEventListener("scroll", () => requestAnimationFrame(mark), { passive: true });
  mark();
}

let printing = false;

/** On paper: light, every chart at the width of a page, every table open. */
function startPrinting() {
  const opened = [];
  let theme;
  addEventListener("beforeprint", () => {
    printing = true;
    theme = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    document.querySelectorAll("details:not([open]):not(.screen)").forEach(d => { d.open = true; opened.push(d); });
    Object.values(charts).forEach(c => c.draw(680));
  });
  addEventListener("afterprint", () => {
    printing = false;
    if (theme === undefined) delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    opened.splice(0).forEach(d => { d.open = false; });
    Object.values(charts).forEach(c => c.draw());
  });
}

startCharts();
startTheme();
startTables();
startCopying();
startContents();
startPrinting();
document.documentElement.dataset.ready = "true";
