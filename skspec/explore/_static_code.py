"""JavaScript of the page without a server."""

__all__ = ["AXES", "CHOOSE", "COLOUR", "FIND", "MOVE", "NEIGHBOUR", "TAP"]

_LIMIT = """
const limit = (values) => {  // half height of an axis about zero, in steps
  const wanted = Math.max(values.reduce((a, v) => v === v ? Math.max(a, Math.abs(v)) : a, 0), least);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return power * [1, 1.5, 2, 3, 5, 7, 10].find((m) => m * power >= 0.999 * wanted);
};
const show = (observed, decoded) => {
  const change = decoded.map((v, i) => v - start[i]), half = limit(change);
  difference.setv({start: -half, end: half});
  curves.data = {...curves.data, observed, decoded, difference: change};
};
const nothing = new Float32Array(start.length).fill(NaN);
"""

#: one slider moved: the others go back to the median star
MOVE = (
    """
const here = sliders.indexOf(cb_obj), value = cb_obj.value;
const elsewhere = sliders.some((s, k) => k !== here && s.value !== centre[k]);
// put back by another slider, or by a click on a star
if (value === centre[here] && (elsewhere || chosen.data.x.length)) return;
const start = beginning.data.flux;
"""
    + _LIMIT
    + """
for (const source of [chosen, near]) source.data = {x: [], y: [], k: []};
if (table) table.data = Object.fromEntries(Object.keys(table.data).map((name) => [name, []]));
sliders.forEach((s, k) => { if (k !== here) s.value = centre[k]; });
star.text = about;
if (value === centre[here]) { show(nothing, start.slice()); return; }
const n = start.length, flux = steps.data.flux;
const t = (value - low[here]) / (high[here] - low[here]) * (n_steps - 1);
const k = Math.min(Math.max(Math.floor(t), 0), n_steps - 2), w = t - k;
const at = (here * n_steps + k) * n;
show(nothing, start.map((_, i) => (1 - w) * flux[at + i] + w * flux[at + n + i]));
"""
)

#: star number cb_data.k of the scatter
CHOOSE = (
    """
const d = points.data, k = cb_data.k, n_points = d.row.length, start = beginning.data.flux;
"""
    + _LIMIT
    + """
const escaped = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const square = new Float64Array(n_points);
spread.forEach((scale, j) => {
  const z = d["z" + j];
  for (let i = 0; i < n_points; i++) square[i] += ((z[i] - z[k]) / scale) ** 2;
});
square[k] = Infinity;
const order = Array.from(square.keys()).sort((a, b) => square[a] - square[b]);
const close = order.slice(0, Math.min(n_near, n_points - 1));
const placed = (rows) => ({x: rows.map((i) => d.x[i]), y: rows.map((i) => d.y[i]), k: rows});
chosen.data = placed([k]);
near.data = placed(close);
table.selected.indices = [];
const rows = {k: close, name: close.map((i) => d.name[i]), row: close.map((i) => d.row[i]),
              distance: close.map((i) => Math.sqrt(square[i]))};
for (let j = 0; j < n_columns; j++) rows["c" + j] = close.map((i) => d["t" + j][i]);
table.data = rows;
const s = d.spectrum[k], n = start.length;
const facts = [["row", d.row[k]], ...(s < 0 ? [] : [fits[s]]),
               ...names.map((name, j) => [name, d["t" + j][k]])];
const cells = facts.map(([key, value]) => `<dt>${escaped(key)}</dt><dd>${escaped(value)}</dd>`);
star.text = `<h2>${escaped(d.name[k])}</h2><dl>${cells.join("")}</dl>` +
  (s < 0 ? "<p class=soft>Its spectrum is not in this file.</p>" : "");
sliders.forEach((slider, j) => { slider.value = centre[j]; });
if (s < 0) { show(nothing, start.slice()); return; }
const flux = spectra.data.flux, observed = flux.slice(2 * s * n, (2 * s + 1) * n);
const decoded = flux.slice((2 * s + 1) * n, (2 * s + 2) * n);
show(observed, decoded);
const sorted = [...observed, ...decoded].filter((v) => v === v).sort((a, b) => a - b);
const least_flux = sorted[Math.floor(0.002 * sorted.length)];
const most_flux = sorted[Math.ceil(0.998 * sorted.length) - 1];
const margin = 0.08 * (most_flux - least_flux) || 0.5;
const frame = {start: least_flux - margin, end: most_flux + margin};
spectrum.setv({...frame, reset_start: frame.start, reset_end: frame.end});
"""
)

#: a click on the scatter: the nearest star, as the screen shows it
TAP = """
const {x, y} = points.data, across = x_range.end - x_range.start, up = y_range.end - y_range.start;
let k = -1, least = reach ** 2;
for (let i = 0; i < x.length; i++) {
  const square = ((x[i] - cb_obj.x) / across) ** 2 + ((y[i] - cb_obj.y) / up) ** 2;
  if (square < least) { least = square; k = i; }
}
if (k >= 0) choose.execute(points, {k});
"""

NEIGHBOUR = """
if (cb_obj.indices.length) choose.execute(points, {k: table.data.k[cb_obj.indices[0]]});
"""

FIND = """
const text = cb_obj.value.trim(), {name, row} = points.data;
let k = name.indexOf(text);
if (k < 0 && /^[0-9]+$/.test(text)) k = row.indexOf(Number(text));
if (k >= 0) choose.execute(points, {k});
else if (text) { cb_obj.value = ""; cb_obj.placeholder = `there is no star ${text.slice(0, 24)}`; }
"""

#: other nodes on the axes of the scatter
AXES = """
const d = points.data, x = d["z" + nodes.indexOf(across.value)], y = d["z" + nodes.indexOf(up.value)];
points.data = {...d, x, y};
for (const source of [chosen, near]) {
  const k = source.data.k ?? [];
  source.data = {x: k.map((i) => x[i]), y: k.map((i) => y[i]), k};
}
const frame = (range, values) => {
  const sorted = Float32Array.from(values).sort(), last = sorted.length - 1;
  const low = sorted[Math.round(0.001 * last)], high = sorted[Math.round(0.999 * last)];
  const margin = 0.05 * (high - low) || 0.5;
  range.setv({start: low - margin, end: high + margin, reset_start: low - margin,
              reset_end: high + margin});
};
frame(x_range, x); frame(y_range, y);
x_axis.axis_label = `node ${across.value}`; y_axis.axis_label = `node ${up.value}`;
"""

COLOUR = """
const chosen = colours.find(({name}) => name === cb_obj.value);
mapper.setv({palette: chosen.palette, low: chosen.low, high: chosen.high});
points.data = {...points.data, value: points.data["v" + chosen.column] ?? zeros.data.value};
legend.text = chosen.legend;
bar.visible = chosen.bar;
"""
