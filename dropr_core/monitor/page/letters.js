// Dead letters: what was given up, why, and the buttons that give it another chance.

import { get } from "./api.js";
import { age, brief, count, h, keyed, say, size } from "./dom.js";
import { badge, press } from "./parts.js";
import { messageState } from "./states.js";

const SIDES = [
  { side: "outbox", state: "dead,failed", title: "Given up on the way out", way: "to", act: "redrive", label: "Send again",
    all: "Send all again", text: "Every dead, failed and expired delivery is queued again, at the end of its lane.",
    none: "Everything that was sent from here arrived, or is still on its way." },
  { side: "inbox", state: "buried", title: "Buried here", way: "from", act: "kick", label: "Kick",
    all: "Kick all", text: "Every buried and delayed message becomes ready now, with fresh attempts.",
    none: "Nothing that came in was buried." },
];

export class Letters {
  constructor(context) {
    this.context = context;
    this.parts = SIDES.map((one) => this.part(one));
    this.element = h("div", { class: "view" }, this.parts.map((one) => one.element));
    this.seen = "";
  }

  part(one) {
    const after = () => this.load();
    const part = { ...one, list: h("ul", { class: "letters" }), empty: h("p", { class: "empty" }, one.none), more: h("p", { class: "empty" }) };
    part.everything = press(one.all, one.act, { all: true }, { after, asks: { title: `${one.all}?`, text: one.text, button: one.all } });
    part.element = h("section", { class: "card", "aria-label": one.title },
      h("div", { class: "row" }, h("h2", {}, one.title), h("span", { class: "acts" }, part.everything)), part.empty, part.list, part.more);
    return part;
  }

  take() {}

  /** Read anew when their number changed: they change rarely. */
  show({ snapshot }) {
    const now = JSON.stringify([snapshot.dead_letters, snapshot.channels.map((one) => one.buried)]);
    if (now !== this.seen) this.load();
    this.seen = now;
  }

  async load() {
    for (const part of this.parts) {
      try {
        const found = await get("/api/messages", { side: part.side, state: part.state, limit: 100 });
        this.fill(part, found);
      } catch (error) {
        this.context.failed(error);
      }
    }
  }

  fill(part, found) {
    part.empty.hidden = found.messages.length > 0;
    part.everything.hidden = found.messages.length === 0;
    part.more.hidden = !found.more;
    say(part.more, "There are more: these are the first hundred.");
    const after = () => this.load();
    keyed(part.list, found.messages, (one) => `${one.id} ${one.peer}`,
      (one) => {
        const facts = h("p", { class: "facts" });
        const again = press(part.label, part.act, { ids: [one.id] }, { after, title: `${part.label}: ${one.id}` });
        const element = h("li", { "data-id": one.id },
          h("div", { class: "row" }, badge(messageState(one.state)),
            h("a", { href: `#message/${one.id}`, class: "id", title: one.id }, brief(one.id)),
            h("span", {}, `${part.way} ${one.peer} · ${one.channel}`), h("span", { class: "acts" }, again)),
          h("pre", { class: "reason" }, one.reason || "no reason was given"), facts);
        return { element, facts };
      },
      (row, one) => say(row.facts, `${age(one.age)} ago · ${size(one.size)}${one.attempts ? ` · ${count(one.attempts, "attempt")}` : ""}`.replace("now ago", "just now")));
  }
}
