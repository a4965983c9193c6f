// Lines over time, drawn as SVG from what was seen since the page is open.

import { h, s, say, set } from "./dom.js";

const KEEP = 300;
const HEIGHT = 120;
const PAD = { left: 4, right: 4, top: 10, bottom: 4 };

/** A round number not below this one. */
function ceiling(number) {
  if (number <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(number));
  return [1, 2, 5, 10].find((step) => step * power >= number) * power;
}

export class Chart {
  /** `series`: [{name, tone}]. `shown`: makes a text of a number. */
  constructor(title, series, shown) {
    this.series = series.map((one) => ({ ...one, points: [] }));
    this.shown = shown;
    this.times = [];
    this.top = s("text", { class: "axis", x: 6, y: 20 });
    this.svg = s("svg", { class: "chart", role: "img", preserveAspectRatio: "none" });
    this.values = this.series.map(() => h("b", {}));
    this.span = h("span", { class: "span" });
    const legend = this.series.map((one, at) => h("li", {}, h("i", { class: `dot ${one.tone}` }), `${one.name} `, this.values[at]));
    this.element = h("section", { class: "card plot" }, h("h3", {}, title, this.span), h("ul", { class: "legend" }, legend), this.svg);
    this.title = title;
  }

  /** One number for each series, at a time in seconds; null: not known. */
  add(time, numbers) {
    this.times.push(time);
    this.series.forEach((one, at) => one.points.push(numbers[at]));
    if (this.times.length > KEEP) {
      this.times.shift();
      this.series.forEach((one) => one.points.shift());
    }
    this.series.forEach((one, at) => say(this.values[at], numbers[at] === null ? "–" : this.shown(numbers[at])));
    this.draw();
  }

  draw() {
    const width = Math.max(200, this.svg.clientWidth || 300);
    set(this.svg, { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT });
    const most = ceiling(Math.max(0, ...this.series.flatMap((one) => one.points.filter((p) => p !== null))));
    const last = this.times[this.times.length - 1];
    const first = Math.min(this.times[0], last - 60);
    const x = (time) => PAD.left + ((time - first) / (last - first)) * (width - PAD.left - PAD.right);
    const y = (value) => HEIGHT - PAD.bottom - (value / most) * (HEIGHT - PAD.top - PAD.bottom);
    const parts = [0, 0.5, 1].map((share) =>
      s("line", { class: "grid", x1: PAD.left, x2: width - PAD.right, y1: y(most * share), y2: y(most * share) }));
    for (const one of this.series) {
      let d = "";
      let begins = null;
      one.points.forEach((value, at) => {
        if (value === null) return;
        if (begins === null) begins = x(this.times[at]);
        d += `${d ? "L" : "M"} ${x(this.times[at]).toFixed(1)} ${y(value).toFixed(1)} `;
      });
      if (!d) continue;
      parts.push(s("path", { class: `area ${one.tone}`, d: `${d} L ${x(last).toFixed(1)} ${y(0)} L ${begins.toFixed(1)} ${y(0)} Z` }));
      parts.push(s("path", { class: `line ${one.tone}`, d }));
    }
    say(this.top, this.shown(most));
    this.svg.replaceChildren(...parts, this.top);
    say(this.span, `last ${Math.max(1, Math.round((last - first) / 60))} min`);
    const now = this.series.map((one, at) => `${one.name} ${this.values[at].textContent}`).join(", ");
    set(this.svg, { "aria-label": `${this.title}: ${now}` });
  }
}
