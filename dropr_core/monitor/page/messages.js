// Looking for messages, and the story of one.

import { get } from "./api.js";
import { age, brief, count, h, keyed, moment, say, size } from "./dom.js";
import { badge, note, press, table } from "./parts.js";
import { messageState } from "./states.js";

const STATES = ["", "queued", "held", "accepted", "ready", "leased", "delayed", "blocked", "buried", "dead", "failed", "expired", "processed", "done", "cancelled"];

export class Messages {
  constructor(context) {
    this.context = context;
    const choice = (name, label, values) => h("label", {}, label, h("select", { name }, values.map(([value, text]) => h("option", { value }, text))));
    this.channels = h("datalist", { id: "known-channels" });
    this.peers = h("datalist", { id: "known-peers" });
    this.form = h("form", { class: "search", role: "search", onsubmit: (event) => { event.preventDefault(); this.search(); } },
      h("label", { class: "wide" }, "Id, or its beginning", h("input", { name: "id", autocomplete: "off", spellcheck: "false", placeholder: "01980…" })),
      h("label", {}, "Channel", h("input", { name: "channel", list: "known-channels", autocomplete: "off" })),
      h("label", {}, "Peer", h("input", { name: "peer", list: "known-peers", autocomplete: "off" })),
      choice("state", "State", STATES.map((one) => [one, one || "any"])),
      choice("side", "Where", [["both", "both ways"], ["outbox", "going out"], ["inbox", "come in"]]),
      h("button", { type: "submit", class: "main" }, "Search"), this.channels, this.peers);
    this.found = table("Messages", ["id", "state", "way", "channel", "age>", "size>", "tries>"]);
    this.said = h("p", { class: "empty", role: "status" });
    this.element = h("div", { class: "view" },
      h("section", { class: "card" }, h("h2", {}, "Messages"), this.form, this.said, this.found.element));
    this.found.element.hidden = true;
  }

  take() {}

  show({ snapshot }) {
    const fill = (list, names) => keyed(list, names, (one) => one, (one) => ({ element: h("option", { value: one }) }), () => {});
    fill(this.channels, [...new Set([...snapshot.channels.map((one) => one.channel), ...snapshot.flows.map((one) => one.channel)])]);
    fill(this.peers, snapshot.peers.map((one) => one.peer));
    if (!this.searched) this.search();
  }

  async search() {
    this.searched = true;
    say(this.said, "…");
    try {
      const found = await get("/api/messages", { ...Object.fromEntries(new FormData(this.form)), limit: 100 });
      const more = found.more ? " There are more: narrow it down." : "";
      const whole = found.whole ? "" : " Only the first 20,000 of each side were looked through: give the whole id.";
      say(this.said, `${found.messages.length || "No"} message${found.messages.length === 1 ? "" : "s"}.${more}${whole}`);
      this.found.element.hidden = found.messages.length === 0;
      keyed(this.found.body, found.messages, (one) => `${one.in} ${one.id} ${one.peer} ${one.state}`, (one) => this.row(one),
        (row, one) => say(row.age, age(one.age)));
    } catch (error) {
      say(this.said, error.message);
      this.context.failed(error);
    }
  }

  row(one) {
    const old = h("td", { class: "number", "data-label": "age" });
    const element = h("tr", {},
      h("th", { scope: "row" }, h("a", { href: `#message/${one.id}`, class: "id", title: one.id }, brief(one.id))),
      h("td", {}, badge(messageState(one.state))), h("td", {}, `${one.in === "inbox" ? "from" : "to"} ${one.peer}`),
      h("td", {}, one.channel), old, h("td", { class: "number", "data-label": "size" }, size(one.size)), h("td", { class: "number", "data-label": "tries" }, one.attempts ?? "–"));
    return { element, age: old };
  }
}

/** One message: what its sender fixed, where it is, what can be done. */
export class Story {
  constructor(context, id) {
    this.context = context;
    this.id = id;
    this.body = h("div");
    this.element = h("div", { class: "view" },
      h("p", {}, h("a", { href: "#messages" }, "‹ all messages")), h("section", { class: "card story" }, h("h2", {}, "Message ", h("span", { class: "id" }, id)), this.body));
    this.load();
  }

  take() {}

  show() {}

  async load() {
    try {
      this.fill(await get(`/api/message/${encodeURIComponent(this.id)}`));
    } catch (error) {
      this.body.replaceChildren(h("p", { class: "empty" }, error.message));
      this.context.failed(error);
    }
  }

  fill(story) {
    const after = () => this.load();
    const facts = story.message && [
      ["from", story.message.claimed_sender ? `${story.message.sender} (it claims to be ${story.message.claimed_sender})` : story.message.sender],
      ["channel", story.message.channel], ["priority", story.message.priority],
      ["sent", `${moment(story.message.created_at)} by the sender's clock`],
      ["body", `${size(story.message.size)} of ${story.message.content_type}`], ["ordering key", story.message.key],
      ["receipt", story.message.receipt ? "asked for" : null],
      ["delay", story.message.delay === null ? null : age(story.message.delay)],
      ["expires after", story.message.expires_in === null ? null : age(story.message.expires_in)],
      ...Object.entries(story.message.headers).map(([name, value]) => [`header ${name}`, value]),
    ].filter(([, value]) => value !== null && value !== undefined && value !== "");
    const steps = story.deliveries.map((one) => this.step(`to ${one.peer}`, one, `position ${one.sequence}`, [
      ["queued", "held"].includes(one.state) ? press("Cancel", "cancel", { id: story.id, peer: one.peer }, { after, title: `Cancel the delivery to ${one.peer}` }) : null,
      ["dead", "failed", "expired"].includes(one.state) ? press("Send again", "redrive", { ids: [story.id] }, { after }) : null,
    ]));
    if (story.inbox) {
      const one = story.inbox;
      const more = [count(one.attempts, "attempt"), one.due_in === null ? "" : `due in ${age(one.due_in)}`, one.consumer ? `with ${one.consumer}` : ""];
      steps.push(this.step(`here, from ${one.peer}`, one, more.filter(Boolean).join(", "), [
        ["ready", "delayed", "blocked"].includes(one.state)
          ? press("Bury", "bury", { id: story.id }, { after, danger: true, asks: { title: "Bury this message?", text: "It goes to the dead letters; “Kick” brings it back.", button: "Bury", reason: "Why; its sender sees it" } })
          : null,
        ["buried", "delayed"].includes(one.state) ? press("Kick", "kick", { ids: [story.id] }, { after }) : null,
      ]));
    }
    const shown = h("pre", { class: "body", hidden: true });
    const show = h("button", { type: "button" }, "Show the body");
    show.addEventListener("click", async () => {
      try {
        const found = await get(`/api/body/${encodeURIComponent(this.id)}`);
        say(shown, `${found.text}${found.whole ? "" : "\n…"}` || "(empty)");
        shown.hidden = false;
        show.hidden = true;
      } catch (error) {
        note(error.message, "bad");
      }
    });
    this.body.replaceChildren(
      facts ? h("dl", { class: "facts-list" }, facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]))
        : h("p", { class: "empty" }, "Its content is no longer kept here."),
      h("h3", {}, "Where it is"), ...story.now.map((one) => h("p", { class: "facts" }, one)), h("ol", { class: "steps" }, steps),
      story.message ? h("div", {}, show, shown) : "", h("h3", {}, "What happened"), this.events(story));
  }

  /** What happened, as this node knows it, and a button that asks the peers. */
  events(story) {
    const list = h("ol", { class: "steps events" });
    const said = h("p", { class: "facts", role: "status" });
    const show = (events) => list.replaceChildren(...events.map((one) => h("li", { class: "step" },
      h("p", {}, h("b", {}, one.node), ` ${one.what}`), h("small", {}, one.at === null ? "now" : moment(one.at)),
      one.details.length ? h("pre", { class: "reason" }, one.details.join("\n")) : null)));
    const ask = h("button", { type: "button", "data-ask": "peers" }, "Ask the peers");
    ask.addEventListener("click", async () => {
      ask.disabled = true;
      say(said, "asking …");
      try {
        const found = await get(`/api/trace/${encodeURIComponent(this.id)}`);
        show(found.events);
        say(said, found.peers.map((one) => `${one.peer}: ${one.problem || (one.deliveries.length + one.inbox.length ? "answered" : "does not know it any more")}`).join(" · ") || "no peer knows of it");
      } catch (error) {
        say(said, error.message);
      }
      ask.disabled = false;
    });
    show(story.events);
    return h("div", {}, list, ask, said);
  }

  step(title, one, more, acts) {
    return h("li", { class: "step", "data-state": one.state },
      h("div", { class: "row" }, badge(messageState(one.state)), h("b", {}, title), h("span", { class: "acts" }, acts)),
      h("p", { class: "facts" }, [more, `${age(one.age)} in this state`, one.possible_duplicate ? "possibly a duplicate" : ""].filter(Boolean).join(" · ")),
      one.reason ? h("pre", { class: "reason" }, one.reason) : null);
  }
}
