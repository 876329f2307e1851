"use strict";
// What all charts share: colours, axes, one box of numbers at the pointer or under the arrow keys.

const DATA = JSON.parse(document.getElementById("chart-data").textContent);

/** A custom property of the page, as it is in the theme in force. */
function colour(name, alpha) {
  const value = getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  return alpha === undefined ? value : `rgb(${value} / ${alpha})`.replace(/^rgb\((\d+) (\d+) (\d+) \/ (.*)\)$/, "rgba($1,$2,$3,$4)");
}

/** Plotly reads a little HTML in its texts: names are not to be read so. */
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function shorten(text, width) {
  const letters = Array.from(text);
  if (letters.length <= width) return text;
  const head = Math.ceil((width - 1) / 2);
  return letters.slice(0, head).join("") + "…" + letters.slice(letters.length - (width - 1 - head)).join("");
}

function decades(value) {
  if (value === null || value === undefined) return "not measured";
  const text = Math.abs(value).toFixed(2);
  return Number(text) === 0 ? "0.00" : (value < 0 ? "−" : "+") + text;
}

function size(value) {
  if (value === null || value === undefined) return "not measured";
  if (value === 0) return "0";
  const magnitude = Math.abs(value);
  return magnitude < 1e-3 || magnitude >= 1e5 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

/** An axis of layers: as many names as there is room for. */
function layerAxis(labels, width, range) {
  const [low, high] = range || [-0.5, labels.length - 0.5];
  const first = Math.max(0, Math.ceil(low)), last = Math.min(labels.length - 1, Math.floor(high));
  const room = Math.max(2, Math.floor(width / 26));
  const step = Math.max(1, Math.ceil((last - first + 1) / room));
  const at = [];
  for (let i = first; i <= last; i += step) at.push(i);
  const letters = width < 500 ? 14 : 22;
  const level = (Math.min(letters, Math.max(...labels.map(l => l.length))) * 7 + 8) * (at.length || 1) < width - 70;
  return {
    range: [low, high], tickvals: at, ticktext: at.map(i => plain(shorten(labels[i], letters))),
    tickangle: level ? 0 : -45, showgrid: false, zeroline: false, automargin: true, showspikes: true,
    spikemode: "across", spikethickness: 1, spikedash: "solid", spikesnap: "hovered data",
    spikecolor: colour("muted"), linecolor: colour("line"), fixedrange: touch(), minallowed: -0.5,
    maxallowed: labels.length - 0.5,
  };
}

function valueAxis(title, more) {
  return Object.assign({
    title: { text: title, font: { size: 12 }, standoff: 8 }, gridcolor: colour("line"), zerolinecolor: colour("muted"),
    zerolinewidth: 1, fixedrange: true, automargin: true,
  }, more);
}

function touch() {
  return window.matchMedia("(pointer: coarse)").matches;
}

function layout(height, more) {
  return Object.assign({
    height, autosize: false, margin: { l: 56, r: 12, t: 30, b: 40 }, paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)", font: { family: "system-ui, 'DejaVu Sans', sans-serif", size: 12, color: colour("ink") },
    hovermode: "x", hoverdistance: -1, spikedistance: -1, dragmode: touch() ? false : "zoom",
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("muted"), font: { color: colour("ink"), size: 12 }, align: "left", namelength: -1 },
    legend: { orientation: "h", x: 0, y: 1, xanchor: "left", yanchor: "bottom", font: { size: 12 } },
    barmode: "relative", bargap: 0.15, modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("muted"), activecolor: colour("accent") },
  }, more);
}

/** The trace that is invisible and bears the numbers: one text a point, alike in every panel. */
function reader(xs, ys, texts, axis) {
  return {
    type: "scatter", mode: "markers", x: xs, y: ys, yaxis: axis || "y", marker: { opacity: 0, size: 12 },
    hoverinfo: "text", hovertext: texts.map(t => t.map(plain).join("<br>")), showlegend: false, reader: true,
  };
}

function note(text, x, y, more) {
  return Object.assign({
    text: plain(text), xref: "paper", yref: "paper", x, y, showarrow: false, xanchor: "left", yanchor: "bottom",
    font: { size: 12, color: colour("muted") },
  }, more);
}

/** One chart on the page: draws itself anew for a view, a theme or a width. */
class Chart {
  constructor(figure) {
    this.figure = figure;
    this.name = figure.dataset.chart;
    this.box = figure.querySelector(".plot");
    this.canvas = figure.querySelector(".canvas");
    this.live = figure.querySelector(".live");
    this.view = {};
    this.at = -1;
    this.drawn = false;
    const controls = CHARTS[this.name].controls;
    if (controls) controls(this, figure.querySelector(".controls"));
    this.box.addEventListener("keydown", event => this.key(event));
    this.box.addEventListener("blur", () => this.drawn && Plotly.Fx.unhover(this.canvas));
  }

  draw(width) {
    width = width || this.box.clientWidth;
    if (!width) return;
    this.width = width;
    const { traces, layout, reads } = CHARTS[this.name].figure(DATA[this.name], this.view, width);
    this.reads = reads;
    layout.width = width;
    this.canvas.style.minHeight = layout.height + "px";
    const config = {
      displaylogo: false, responsive: false, scrollZoom: false, displayModeBar: touch() ? false : "hover",
      modeBarButtons: [["toImage", "zoomIn2d", "zoomOut2d", "resetScale2d"]], doubleClick: "reset",
      toImageButtonOptions: { filename: "gradscope-" + this.name, scale: 2 },
    };
    Plotly.react(this.canvas, traces, layout, config);
    // Hidden from readers as all of the drawing is, so not to be reached by the tab key either.
    this.canvas.querySelectorAll("button, a").forEach(button => { button.tabIndex = -1; });
    if (!this.drawn) this.canvas.on("plotly_relayout", change => this.zoomed(change));
    this.drawn = true;
  }

  /** New names for the part of the layers that is in view. */
  zoomed(change) {
    const labels = CHARTS[this.name].labels && CHARTS[this.name].labels(DATA[this.name], this.view);
    if (!labels || this.naming || !Object.keys(change).some(key => key.startsWith("xaxis."))) return;
    const range = change["xaxis.autorange"] ? undefined : this.canvas.layout.xaxis.range.map(Number);
    const axis = layerAxis(labels, this.width, range);
    this.naming = true;
    Plotly.relayout(this.canvas, {
      "xaxis.tickvals": axis.tickvals, "xaxis.ticktext": axis.ticktext, "xaxis.range": axis.range,
    }).then(() => { this.naming = false; });
  }

  key(event) {
    const last = (this.reads || []).length - 1;
    const to = { ArrowRight: this.at + 1, ArrowLeft: this.at - 1, Home: 0, End: last }[event.key];
    if (to === undefined || last < 0 || event.target !== this.box) return;
    event.preventDefault();
    this.at = Math.min(Math.max(to, 0), last);
    const curve = this.canvas.data.findIndex(trace => trace.reader);
    if (curve >= 0) Plotly.Fx.hover(this.canvas, [{ curveNumber: curve, pointNumber: this.at }]);
    this.live.textContent = this.reads[this.at].join(", ");
  }
}

/** A labelled list of choices; nothing where there is no choice. */
function choice(chart, parent, key, title, options) {
  chart.view[key] = 0;
  if (options.length < 2) return null;
  const label = document.createElement("label");
  const select = document.createElement("select");
  label.append(title + " ", select);
  options.forEach((text, i) => select.add(new Option(text, i)));
  select.addEventListener("change", () => { chart.view[key] = Number(select.value); chart.at = -1; chart.draw(); });
  parent.append(label);
  return select;
}

function toggle(chart, parent, key, title, on) {
  chart.view[key] = on;
  const label = document.createElement("label");
  const box = document.createElement("input");
  box.type = "checkbox";
  box.checked = on;
  label.append(box, title);
  box.addEventListener("change", () => { chart.view[key] = box.checked; chart.at = -1; chart.draw(); });
  parent.append(label);
}
