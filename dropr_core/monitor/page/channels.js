// The queues of this node: what each holds, and whether its consumers get it.

import { age, h, keyed, rate, say, set, short, size } from "./dom.js";
import { badge, press } from "./parts.js";

const STATES = [["ready", "one"], ["leased", "two"], ["delayed", "three"], ["blocked", "four"], ["buried", "five"]];

export class Channels {
  constructor(context) {
    this.context = context;
    this.list = h("ul", { class: "channels" });
    this.none = h("p", { class: "empty" }, "Nothing has come in here yet.");
    this.element = h("div", { class: "view" }, h("h2", {}, "Channels of this node"), this.none, this.list);
  }

  take() {}

  show({ snapshot, rates }) {
    this.none.hidden = snapshot.channels.length > 0;
    keyed(this.list, snapshot.channels, (one) => one.channel, (one) => this.make(one), (part, one) => this.update(part, one, rates));
  }

  make(channel) {
    const name = channel.channel;
    const after = () => this.context.refresh();
    const part = { state: h("span"), facts: h("p", { class: "facts" }), bar: h("div", { class: "bar", role: "img" }) };
    part.pieces = STATES.map(([, tone]) => h("span", { class: `piece ${tone}` }));
    part.bar.append(...part.pieces);
    part.numbers = STATES.map(([state, tone]) => {
      const value = h("b");
      const item = h("li", {}, h("i", { class: `dot ${tone}` }), `${state} `, value);
      return { item, value };
    });
    const ask = {
      title: `Pause ${name}?`, button: "Pause", reason: "Why, for whoever looks next",
      text: "Consumers get nothing more of it until it goes on. What is sent to it is kept.",
    };
    part.pause = press("Pause", "pause", { channel: name }, { asks: ask, after, title: `Pause ${name}` });
    part.unpause = press("Go on", "unpause", { channel: name }, { after, title: `Let ${name} go on` });
    part.kick = press("Kick buried", "kick", { channel: name }, {
      after, title: `Kick what is buried in ${name}`,
      asks: { title: `Kick what is buried in ${name}?`, text: "Buried and delayed messages of it become ready now, with fresh attempts.", button: "Kick" },
    });
    part.element = h("li", { class: "card channel", "data-channel": name },
      h("div", { class: "row" }, h("h3", {}, name), part.state, h("span", { class: "acts" }, part.kick, part.pause, part.unpause)),
      part.bar, h("ul", { class: "legend" }, part.numbers.map((one) => one.item)), part.facts);
    return part;
  }

  update(part, channel, rates) {
    const total = STATES.reduce((sum, [state]) => sum + channel[state], 0);
    STATES.forEach(([state], at) => {
      const number = channel[state];
      part.pieces[at].style.flexGrow = String(number);
      part.pieces[at].hidden = number === 0;
      say(part.numbers[at].value, short(number));
      set(part.numbers[at].item, { class: number ? null : "zero" });
    });
    set(part.bar, { "aria-label": STATES.map(([state]) => `${channel[state]} ${state}`).join(", "), class: total ? "bar" : "bar none" });
    const speed = rates && rates.channels[channel.channel];
    const facts = [
      speed ? `in ${rate(speed.sent)}, processed ${rate(speed.shipped)}` : "",
      channel.oldest !== null ? `the oldest ready one waits ${age(channel.oldest)}` : "nothing is ready",
      `${short(channel.processed)} processed ever`, size(channel.bytes),
    ];
    say(part.facts, facts.filter(Boolean).join(" · "));
    const rest = channel.paused_for === null ? "" : `, ${age(channel.paused_for)} more`;
    const state = channel.paused ? badge({ tone: "warn", sign: "❚❚", word: `paused${rest}: ${channel.paused_because}` }) : "";
    part.state.replaceChildren(state);
    part.pause.hidden = channel.paused;
    part.unpause.hidden = !channel.paused;
    part.kick.hidden = channel.buried === 0;
  }
}
