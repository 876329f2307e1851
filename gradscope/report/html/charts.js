// The charts: data and view in, what plotly draws out. `reads` is what the arrow keys read aloud.

const CHARTS = {};
const SERIES = ["s1", "s2", "s3", "s4", "s5", "s6"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "cross"];

/** What becomes of the gradient on each path through a block. */
function readBranches(branches) {
  const lines = branches.slice(0, 6).map(([site, gain]) => `branch ${shorten(site, 32)}: ${decades(gain)}`);
  return branches.length > 6 ? lines.concat(`and ${branches.length - 6} more branches`) : lines;
}

CHARTS.ledger = {
  controls: (chart, parent) => choice(chart, parent, "head", "Output", DATA.ledger.map(h => h.name)),
  labels: (data, view) => data[view.head].labels,
  figure(data, view, width) {
    const head = data[view.head], n = head.labels.length, xs = head.labels.map((_, i) => i);
    const reads = xs.map(i => [
      shorten(head.labels[i], 44),
      `${decades(head.left[i])} decades left, median sample ${decades(head.leftMedian[i])}`,
      `here ${decades(head.gain[i])}: weights ${decades(head.weight[i])},`,
      `slope ${decades(head.slope[i])}, derivative ${decades(head.activation[i])}`,
    ].concat(head.notes[i] ? [head.notes[i]] : [], readBranches(head.branches[i])));
    const small = n <= 80;
    const line = (name, ys, dash, symbol, tone) => ({
      type: "scatter", mode: n <= 60 ? "lines+markers" : "lines", x: xs, y: ys, name, hoverinfo: "skip",
      line: { color: colour(tone), dash, width: 2 }, marker: { symbol, size: 6 }, legendgroup: "left",
    });
    const bar = (name, key, tone, shape) => ({
      type: "bar", x: xs, y: head[key], name, yaxis: "y2", hoverinfo: "skip",
      marker: { color: colour(tone), pattern: small ? { shape, fillmode: "overlay", size: 6, solidity: 0.35, fgcolor: colour("card") } : {} },
    });
    const skips = xs.filter(i => head.notes[i]);
    const traces = [
      line("decades left", head.left, "solid", "circle", "line-1"),
      line("of the median sample", head.leftMedian, "dash", "diamond-open", "line-2"),
      bar("weights", "weight", "weights", ""), bar("slope", "slope", "slope", "/"), bar("derivative", "activation", "derivative", "."),
      reader(xs, head.left.map(v => v ?? 0), reads, "y"),
      reader(xs, xs.map(() => 0), reads, "y2"),
    ];
    if (skips.length && n <= 200) {
      traces.push({
        type: "scatter", mode: "markers", x: skips, y: skips.map(i => head.left[i]), name: "skip connection or branches",
        marker: { symbol: "diamond-wide-open", size: 13, color: colour("muted"), line: { width: 2 } }, hoverinfo: "skip",
      });
    }
    const inner = xs.flatMap(i => head.branches[i].map(b => [i, b[1]])).filter(b => b[1] !== null);
    if (inner.length && inner.length <= 400) {
      traces.push({
        type: "scatter", mode: "markers", x: inner.map(b => b[0]), y: inner.map(b => b[1]), yaxis: "y2", name: "branch, against the block's output",
        marker: { symbol: "hourglass", size: 9, color: colour("line-2") }, hoverinfo: "skip",
      });
    }
    const lowest = Math.min(0, ...head.left.filter(v => v !== null), ...head.leftMedian.filter(v => v !== null));
    return {
      traces, reads,
      layout: layout(width < 500 ? 460 : 480, {
        xaxis: Object.assign(layerAxis(head.labels, width), { anchor: "y2" }),
        yaxis: valueAxis("decades left", { domain: [0.5, 1], range: lowest > -1.2 ? [-1.2, null] : undefined, autorange: lowest > -1.2 ? "max" : true }),
        yaxis2: valueAxis("change here", { domain: [0, 0.42] }),
      }),
    };
  },
};

/** Polygons [x - half, x + half] x [low, high], as one trace. */
function boxes(xs, low, high, half, floor, fill, name, axis) {
  const x = [], y = [];
  xs.forEach((at, i) => {
    if (high[i] === null || high[i] <= 0) return;
    const bottom = Math.max(low[i] ?? floor, floor);
    x.push(at - half, at + half, at + half, at - half, at - half, null);
    y.push(bottom, bottom, high[i], high[i], bottom, null);
  });
  return { type: "scatter", mode: "lines", x, y, fill: "toself", fillcolor: fill, line: { width: 0 }, name, yaxis: axis, hoverinfo: "skip", hoveron: "points" };
}

const GRADIENTS = { random: "random cotangents", loss: "loss" };
const STATES = { zero: "every element is 0", "no-path": "no path leads there", nonfinite: "NaN or infinite in part" };

function readGradient(bands, i) {
  const state = bands.state[i];
  if (state !== "value") return STATES[state] || state;
  return `rms ${size(bands.rms[i])}, median ${size(bands.q50[i])}, 90% within ${size(bands.q05[i])} to ${size(bands.q95[i])}`;
}

CHARTS.gradients = {
  controls: (chart, parent) => {
    const matrices = DATA.gradients.matrix.filter(Boolean).length;
    const both = matrices && matrices < DATA.gradients.matrix.length;
    choice(chart, parent, "all", "Show", both ? ["weights only", "all parameters"] : ["all"]);
    if (!both) chart.view.all = 1;
  },
  labels: (data, view) => data.labels.filter((_, i) => view.all || data.matrix[i]),
  figure(data, view, width) {
    const kept = data.labels.map((_, i) => i).filter(i => view.all || data.matrix[i]);
    const labels = kept.map(i => data.labels[i]), xs = labels.map((_, i) => i);
    const kinds = Object.keys(GRADIENTS).filter(k => data[k]);
    const pick = (kind, key) => kept.map(i => data[kind][key][i]);
    const positive = kinds.flatMap(k => pick(k, "q05").concat(pick(k, "rms"))).filter(v => v > 0);
    const sizes = kinds.flatMap(k => pick(k, "q95").concat(pick(k, "rms"))).filter(v => v > 0);
    const highest = sizes.length ? Math.max(...sizes) : 1;
    const floor = Math.max(Math.min(...positive, highest), highest * 1e-24) / 3;
    const half = labels.length > 60 ? 0.5 : 0.36;
    const reads = kept.map(i => [shorten(data.labels[i], 44)].concat(kinds.map(k => `${GRADIENTS[k]}: ${readGradient(data[k], i)}`)));
    const traces = [], annotations = [], axes = {};
    kinds.forEach((kind, row) => {
      const axis = row ? "y2" : "y", band = row ? "band-loss" : "band", tone = row ? "s4" : "s1";
      const medians = { x: [], y: [] };
      pick(kind, "q50").forEach((v, i) => { if (v > 0) { medians.x.push(i - half, i + half, null); medians.y.push(v, v, null); } });
      const odd = xs.filter(i => pick(kind, "state")[i] in STATES);
      const shown = { showlegend: row === 0 };
      traces.push(
        Object.assign(boxes(xs, pick(kind, "q05"), pick(kind, "q95"), half, floor, colour(band, 0.22), "90% of elements", axis), shown),
        Object.assign(boxes(xs, pick(kind, "q25"), pick(kind, "q75"), half, floor, colour(band, 0.5), "middle half", axis), shown),
        Object.assign({ type: "scatter", mode: "lines", x: medians.x, y: medians.y, line: { color: colour(tone), width: 2.5 }, name: "median", yaxis: axis, hoverinfo: "skip" }, shown),
        Object.assign({ type: "scatter", mode: "markers", x: xs, y: pick(kind, "rms").map(v => v > 0 ? v : null), name: "rms", yaxis: axis, hoverinfo: "skip", marker: { color: colour("ink"), size: labels.length > 150 ? 3 : 6, symbol: "circle" } }, shown),
        { type: "scatter", mode: "markers", x: odd, y: odd.map(() => floor), name: "no value", yaxis: axis, hoverinfo: "skip", showlegend: odd.length > 0 && row === 0, marker: { symbol: "x-thin-open", size: 9, color: colour("bad"), line: { width: 2 } } },
        reader(xs, pick(kind, "rms").map(v => v > 0 ? v : floor), reads, axis),
      );
      const top = kinds.length === 1 ? 1 : row ? 0.44 : 1;
      annotations.push(note(kind === "loss" ? "gradient of the loss" : "gradient for random cotangents", 0, top));
      axes[row ? "yaxis2" : "yaxis"] = valueAxis("|gradient|", {
        type: "log", domain: kinds.length === 1 ? [0, 1] : row ? [0, 0.44] : [0.56, 1], exponentformat: "power",
        range: [Math.log10(floor / 1.5), Math.log10(highest) + 0.4], dtick: tickStep(floor, highest),
      });
    });
    return {
      traces, reads,
      layout: layout(kinds.length === 1 ? 360 : 540, Object.assign({
        xaxis: Object.assign(layerAxis(labels, width), { anchor: kinds.length === 1 ? "y" : "y2" }), annotations,
        legend: { orientation: "h", x: 0, y: 1.06, xanchor: "left", yanchor: "bottom", font: { size: 12 } },
        margin: { l: 56, r: 12, t: width < 500 ? 84 : 56, b: 40 },
      }, axes)),
    };
  },
};

/** Decades between two marks of a logarithmic axis: about five marks. */
function tickStep(low, high) {
  return Math.max(1, Math.ceil((Math.log10(high) - Math.log10(low)) / 5));
}

/** Up to so many layers each is a row; more of them are columns, as in the other charts. */
const FEW = 12;

/** Rows of units by layers: the largest share of the units that a cell stands for, and its text. */
function unitCells(v, rows) {
  const n = v.labels.length, z = [], text = [];
  for (let r = 0; r < rows; r++) {
    z.push([]);
    text.push([]);
    for (let c = 0; c < n; c++) {
      const cells = v.cells[c], from = Math.floor(r * cells.length / rows);
      const to = Math.max(from + 1, Math.floor((r + 1) * cells.length / rows));
      const shares = cells.slice(from, to).filter(s => s !== null);
      const share = shares.length ? Math.max(...shares) : null;
      const last = Math.min(to * v.per, v.counts[c]) - 1;
      z[r].push(share);
      text[r].push(plain(shorten(v.labels[c], 44)) + "<br>" + (last > from * v.per
        ? `units ${from * v.per} to ${last}: ${v.word} up to ${share}%` : `unit ${from * v.per}: ${v.word} ${share}%`));
    }
  }
  return { z, text };
}

const turned = grid => grid[0].map((_, c) => grid.map(row => row[c]));

function readUnits(v, c) {
  const cells = v.cells[c].filter(s => s !== null), high = cells.filter(s => s > 95).length;
  const mean = cells.reduce((a, b) => a + b, 0) / Math.max(cells.length, 1);
  return [v.labels[c], `${v.counts[c]} units`, `${v.word} on average ${mean.toFixed(0)}%`, `${high} of ${cells.length} ${v.per > 1 ? "groups" : "units"} above 95%`];
}

CHARTS.units = {
  controls: (chart, parent) => choice(chart, parent, "which", "Show", DATA.units.map(v => v.title)),
  labels: (data, view) => data[view.which].labels.length > FEW ? data[view.which].labels : null,
  figure(data, view, width) {
    const v = data[view.which], n = v.labels.length, few = n <= FEW;
    const longest = Math.max(...v.cells.map(c => c.length));
    const rows = Math.max(1, Math.min(few ? 256 : 128, Math.floor(60000 / n), longest));
    const { z, text } = unitCells(v, rows);
    const scale = [0, 1, 2, 3].map(i => [i / 3, colour("heat-" + i)]);
    const marks = [0, 25, 50, 75, 100];
    const trace = {
      type: "heatmap", z: few ? turned(z) : z, text: few ? turned(text) : text, zmin: 0, zmax: 100, colorscale: scale,
      hovertemplate: "%{text}<extra></extra>", xgap: (few ? rows : n) <= 64 ? 2 : 0, ygap: (few ? n : rows) <= 40 ? 2 : 0, hoverongaps: false,
      colorbar: { orientation: "h", thickness: 10, len: width < 500 ? 0.8 : 0.4, x: 1, xanchor: "right", y: 1.02, yanchor: "bottom", title: { text: width < 500 ? v.word : `${v.word}, share of samples and positions`, side: "top", font: { size: 12 } }, tickvals: marks, ticktext: marks.map(m => m + "%"), outlinewidth: 0 },
    };
    const units = valueAxis(rows < longest || v.per > 1 ? "units, first to last" : "unit", { showgrid: false, zeroline: false, ticks: "" });
    const layers = valueAxis("", {
      tickvals: v.labels.map((_, i) => i), ticktext: v.labels.map(l => plain(shorten(l, width < 500 ? 12 : 26))),
      autorange: "reversed", showgrid: false, zeroline: false, ticks: "",
    });
    if (rows < longest || v.per > 1) units.showticklabels = false;
    else if (few) Object.assign(units, { title: { text: "" }, tickprefix: "unit ", showtickprefix: "first" });
    const axes = few ? { xaxis: units, yaxis: layers } : {
      xaxis: Object.assign(layerAxis(v.labels, width), { showspikes: false }), yaxis: Object.assign(units, { autorange: "reversed" }),
    };
    return {
      traces: [trace], reads: v.labels.map((_, c) => readUnits(v, c)),
      layout: layout(few ? 130 + n * (n < 6 ? 40 : 26) : 400, Object.assign({ hovermode: "closest", margin: { l: 40, r: 12, t: 48, b: 40 } }, axes)),
    };
  },
};

CHARTS.time = {
  controls: (chart, parent) => choice(chart, parent, "cell", "Layer", DATA.time.map(c => c.name)),
  figure(data, view, width) {
    const cell = data[view.cell], steps = cell.series[0].steps;
    const reads = steps.map((step, i) => [`step ${step}`].concat(cell.series.map(s =>
      `${s.name}: gradient ${s.gain[i] === null ? "none" : decades(s.gain[i])}, saturated ${s.saturated[i] === null ? "not measured" : Math.round(100 * s.saturated[i]) + "%"}`)));
    const traces = cell.series.flatMap((s, i) => ["gain", "saturated"].map(key => ({
      type: "scatter", mode: s.steps.length <= 60 ? "lines+markers" : "lines", x: s.steps, y: s[key], name: plain(s.name),
      legendgroup: "s" + i, showlegend: key === "gain", yaxis: key === "gain" ? "y" : "y2", hoverinfo: "skip",
      line: { color: colour(SERIES[i % 6]), dash: DASHES[i % 6], width: 2 }, marker: { symbol: SYMBOLS[i % 6], size: 7 },
    })));
    const highest = steps.map((_, i) => Math.max(...cell.series.map(s => s.gain[i] ?? -Infinity)));
    traces.push(
      reader(steps, highest.map(v => Number.isFinite(v) ? v : 0), reads, "y"),
      reader(steps, steps.map((_, i) => Math.max(0, ...cell.series.map(s => s.saturated[i] ?? 0))), reads, "y2"),
    );
    return {
      traces, reads,
      layout: layout(440, {
        margin: { l: 56, r: 12, t: width < 500 ? 56 : 30, b: 40 },
        xaxis: { title: { text: "step", font: { size: 12 } }, anchor: "y2", showgrid: false, zeroline: false, fixedrange: touch(), showspikes: true, spikemode: "across", spikethickness: 1, spikedash: "solid", spikecolor: colour("muted"), tickformat: "d", dtick: Math.max(...steps) - Math.min(...steps) <= 20 ? 1 : undefined, linecolor: colour("line") },
        yaxis: valueAxis("log10 of gradient", { domain: [0.5, 1], zeroline: false }),
        yaxis2: valueAxis("saturated", { domain: [0, 0.42], tickformat: ".0%", range: [-0.02, 1.02] }),
      }),
    };
  },
};

CHARTS.trial = {
  figure(data) {
    const arms = data.arms, steps = arms.map(a => a.steps).reduce((a, b) => a.length >= b.length ? a : b);
    const reads = steps.map((step, i) => [`step ${step}`].concat(arms.map(a => `${a.name}: ${data.metric} ${size(a.score[i])}, loss ${size(a.loss[i])}`)));
    const traces = arms.map((a, i) => ({
      type: "scatter", mode: "lines+markers", x: a.steps, y: a.score, name: a.name, hoverinfo: "skip",
      line: { color: colour(SERIES[i]), dash: DASHES[i], width: 2.5 }, marker: { symbol: SYMBOLS[i], size: 8 },
    }));
    if (data.chance !== null) traces.push({ type: "scatter", mode: "lines", x: [steps[0], steps[steps.length - 1]], y: [data.chance, data.chance], name: "guessing", hoverinfo: "skip", line: { color: colour("muted"), dash: "dot" } });
    traces.push(reader(steps, steps.map((_, i) => arms[1].score[i] ?? arms[0].score[i] ?? 0), reads));
    return { traces, reads, layout: layout(340, { xaxis: { title: { text: "step", font: { size: 12 } }, showgrid: false, zeroline: false, fixedrange: touch(), linecolor: colour("line") }, yaxis: valueAxis(data.metric, { rangemode: "tozero" }) }) };
  },
};

CHARTS.histograms = {
  controls(chart, parent) {
    const names = DATA.histograms.map(p => p.name);
    chart.select = choice(chart, parent, "which", "Parameter", names);
    if (names.length < 2) parent.append(names[0]);
    toggle(chart, parent, "log", "logarithmic counts", false);
  },
  figure(data, view, width) {
    const p = data[view.which], wide = width >= 640;
    const traces = [], annotations = [], reads = [], rows = [];
    const [wState, rState, lState] = p.states;
    const domains = wide ? [[0, 0.47], [0.55, 1]] : [[0, 1], [0, 1]];
    if (p.weight) {
      const [low, high, counts] = p.weight, step = (high - low) / counts.length || Math.abs(low) || 1;
      const xs = counts.map((_, i) => low + (i + (high > low ? 0.5 : 0)) * step);
      const texts = counts.map((count, i) => high > low ? `weights ${size(low + i * step)} to ${size(low + (i + 1) * step)}: ${count.toLocaleString("en")}` : `weights all ${size(low)}: ${count.toLocaleString("en")}`);
      traces.push({ type: "bar", x: xs, y: counts, width: step, marker: { color: colour("weights"), line: { width: 0 } }, name: "weights", hoverinfo: "skip", showlegend: false });
      traces.push(reader(xs, counts, texts.map(t => [t])));
      texts.forEach(t => reads.push([t]));
      rows.push(...texts.map(t => t.split(": ")));
    }
    annotations.push(note(p.weight ? "weights" : `weights: ${STATES[wState] || "not measured"}`, domains[0][0], 1));
    const lines = [["random", "gradient, random cotangents", "s1", "band", "solid", rState], ["loss", "gradient of the loss", "s4", "band-loss", "dash", lState]].filter(l => p[l[0]]);
    const octaves = new Map();
    lines.forEach(([key, name]) => p[key][1].forEach((count, i) => {
      const at = p[key][0] + i;
      octaves.set(at, (octaves.get(at) || []).concat(`${name}: ${count.toLocaleString("en")}`));
    }));
    lines.forEach(([key, name, tone, band, dash]) => {
      const [lowest, counts] = p[key];
      const xs = counts.flatMap((_, i) => [lowest + i, lowest + i + 1]), ys = counts.flatMap(c => [c, c]);
      traces.push({
        type: "scatter", mode: "lines", x: [xs[0], ...xs, xs[xs.length - 1]].map(v => v * Math.log10(2)), y: [view.log ? 0.5 : 0, ...ys, view.log ? 0.5 : 0], name, xaxis: "x2", yaxis: "y2",
        fill: "toself", fillcolor: colour(band, 0.25), line: { color: colour(tone), dash, width: 2 }, hoverinfo: "skip", hoveron: "points",
      });
    });
    const keys = [...octaves.keys()].sort((a, b) => a - b);
    if (keys.length) {
      const heights = keys.map(k => Math.max(...lines.map(l => p[l[0]][1][k - p[l[0]][0]] || 0)));
      const texts = keys.map(k => [`|g| ${size(2 ** k)} to ${size(2 ** (k + 1))}`, ...octaves.get(k)]);
      const trace = reader(keys.map(k => (k + 0.5) * Math.log10(2)), heights.map(h => Math.max(h, view.log ? 0.5 : 0)), texts, "y2");
      trace.xaxis = "x2";
      traces.push(trace);
      reads.push(...texts);
      rows.push(...texts.map(t => [t[0], t.slice(1).join("; ")]));
    } else {
      annotations.push(note(`gradient: ${STATES[rState] || STATES[lState] || "not measured"}`, domains[1][0], wide ? 1 : 0.4));
    }
    // Both halves exist, whatever is in them: plotly warns of an axis without a trace.
    const nothing = { type: "scatter", x: [null], y: [null], hoverinfo: "skip", showlegend: false };
    traces.push(nothing, Object.assign({}, nothing, { xaxis: "x2", yaxis: "y2" }));
    histogramTable(p.name, rows);
    const count = { type: view.log ? "log" : "linear", rangemode: "tozero", tickformat: "~s", exponentformat: "none" };
    if (view.log) count.dtick = 1;
    return {
      traces, reads,
      layout: layout(wide ? 330 : 560, {
        annotations, margin: { l: 56, r: 12, t: 44, b: 40 }, bargap: 0, hovermode: "closest",
        legend: wide ? { orientation: "h", x: domains[1][0], y: 1, xanchor: "left", yanchor: "bottom", font: { size: 12 } } : { orientation: "h", x: 0, y: 0.41, xanchor: "left", yanchor: "bottom", font: { size: 12 } },
        showlegend: lines.length > 0,
        xaxis: { domain: domains[0], anchor: "y", showgrid: false, zeroline: false, fixedrange: true, linecolor: colour("line") },
        xaxis2: { domain: domains[1], anchor: "y2", showgrid: false, zeroline: false, fixedrange: true, tickprefix: "10<sup>", ticksuffix: "</sup>", linecolor: colour("line"), dtick: Math.max(1, Math.ceil((keys[keys.length - 1] - keys[0] || 1) * Math.log10(2) / ((wide ? width / 2 : width) / 48))) },
        yaxis: valueAxis("elements", Object.assign({ domain: wide ? [0, 1] : [0.58, 1] }, count)),
        yaxis2: valueAxis("", Object.assign({ domain: wide ? [0, 1] : [0, 0.4], anchor: "x2" }, count)),
      }),
    };
  },
};

/** The histogram's numbers as a table: made when it is drawn, for one parameter at a time. */
function histogramTable(name, rows) {
  const table = document.createElement("table");
  table.createCaption().textContent = name;
  const head = table.createTHead().insertRow();
  ["Range", "Elements"].forEach(text => {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = text;
    head.append(cell);
  });
  const body = table.createTBody();
  rows.forEach(row => row.forEach((text, i) => {
    const line = i ? body.lastElementChild : body.insertRow();
    line.insertCell().textContent = text;
  }));
  document.getElementById("histogram-table").replaceChildren(table);
}
