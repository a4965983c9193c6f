// What happens at times of the clock: when it is due, what came of the last runs, and buttons to run, pause and go on.

import { get } from "./api.js";
import { age, brief, count, h, keyed, say, set } from "./dom.js";
import { badge, press } from "./parts.js";
import { messageState, scheduleState } from "./states.js";

const EVERY = 3; // seconds: schedules change rarely

const local = (iso) => new Date(iso).toLocaleString();

export class Schedules {
  constructor(context) {
    this.context = context;
    this.asked = 0;
    this.list = h("ul", { class: "schedules" });
    this.said = h("p", { class: "empty", role: "status" }, "…");
    this.element = h("div", { class: "view" }, h("h2", {}, "Schedules of this node"), this.said, this.list);
  }

  take() {}

  /** Read anew while it is looked at, not with each picture. */
  show({ snapshot }) {
    if (Math.abs(snapshot.at - this.asked) < EVERY) return;
    this.asked = snapshot.at;
    this.load();
  }

  async load() {
    try {
      const found = await get("/api/schedules");
      const none = found.schedules.length ? "" : "There are none: name them under “schedules:” in the node's file, or “dropr schedule add”.";
      say(this.said, found.more ? "There are more: “dropr schedule list” shows them all." : none);
      this.said.hidden = !this.said.textContent;
      keyed(this.list, found.schedules, (one) => one.name, (one) => this.make(one), (part, one) => this.update(part, one, found.now));
    } catch (error) {
      this.context.failed(error);
    }
  }

  make({ name }) {
    const words = { schedule: name };
    const after = () => this.load();
    const part = { state: h("span"), words: h("p"), reason: h("pre", { class: "reason" }), facts: h("dl", { class: "facts-list" }), runs: h("ol", { class: "steps" }) };
    part.none = h("p", { class: "facts" }, "…");
    part.run = press("Run now", "schedule-run", words, {
      after, title: `Run ${name} now`,
      asks: { title: `Run ${name} now?`, text: "It happens once more, at this moment; its due times stay as they are.", button: "Run now" },
    });
    part.pause = press("Pause", "schedule-pause", words, {
      after, title: `Pause ${name}`,
      asks: { title: `Pause ${name}?`, text: "What comes due until it goes on is left out.", button: "Pause" },
    });
    part.resume = press("Go on", "schedule-resume", words, { after, title: `Let ${name} go on` });
    part.details = h("details", {}, h("summary", { "aria-label": `Last runs of ${name}` }, "Last runs"), part.none, part.runs);
    part.details.addEventListener("toggle", () => part.details.open && this.loadRuns(part, name));
    part.element = h("li", { class: "card schedule", "data-schedule": name },
      h("div", { class: "row" }, h("h3", {}, name), part.state, h("span", { class: "acts" }, part.run, part.pause, part.resume)),
      part.words, part.reason, part.facts, part.details);
    return part;
  }

  update(part, one, now) {
    part.state.replaceChildren(badge(scheduleState(one.state)));
    say(part.words, one.words && one.zone ? `${one.words} (${one.zone})` : one.words || one.rule);
    part.words.hidden = !part.words.textContent;
    say(part.reason, one.reason);
    part.reason.hidden = !one.reason;
    const next = one.next && `${local(one.next)} (${this.until(one.next, now)})`;
    const last = one.last && `${local(one.last)}${one.last_state ? `, ${one.last_state}` : ""}`;
    const facts = [
      ["next", next || "never"], ["last", last || "it never ran"], ["rule", one.rule], ["time zone", one.zone],
      ["channel", one.to.length ? `${one.channel}, to ${one.to.join(", ")}` : one.channel],
      ["left out", one.skipped ? count(one.skipped, "due time") : ""],
    ].filter(([, value]) => value);
    keyed(part.facts, facts.flatMap(([name, value]) => [["dt", name, name], ["dd", name, value]]), ([kind, name]) => `${kind} ${name}`,
      ([kind]) => ({ element: h(kind) }), (row, [, , text]) => say(row.element, text));
    const gone = one.state === "broken";
    part.run.hidden = gone;
    part.pause.hidden = gone || one.state === "paused";
    part.resume.hidden = one.state !== "paused";
    if (part.details.open) this.loadRuns(part, one.name);
  }

  until(next, now) {
    const seconds = (Date.parse(next) - Date.parse(now)) / 1000;
    return seconds < 1 ? "now" : `in ${age(seconds)}`;
  }

  async loadRuns(part, name) {
    try {
      const { runs } = await get(`/api/schedule/${encodeURIComponent(name)}`);
      say(part.none, runs.length ? "" : "It never ran.");
      part.none.hidden = runs.length > 0;
      keyed(part.runs, runs, (one) => `${one.id} ${one.at}`, (one) => this.makeRun(one), (row, one) => this.updateRun(row, one));
    } catch (error) {
      say(part.none, error.message);
      part.none.hidden = false;
      this.context.failed(error);
    }
  }

  makeRun(one) {
    const row = { state: h("span"), result: h("pre", { class: "reason" }), reason: h("pre", { class: "reason" }) };
    row.element = h("li", { class: "step", "data-run": one.id },
      h("div", { class: "row" }, row.state, h("b", {}, local(one.due)), one.manual ? h("small", {}, "by hand") : null,
        one.id ? h("a", { href: `#message/${one.id}`, class: "id", title: one.id }, brief(one.id)) : null),
      row.result, row.reason);
    return row;
  }

  updateRun(row, one) {
    row.state.replaceChildren(badge(messageState(one.state)));
    set(row.element, { "data-state": one.state });
    for (const name of ["result", "reason"]) {
      say(row[name], one[name] || "");
      row[name].hidden = !one[name];
    }
  }
}
