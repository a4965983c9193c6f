// The page: which view is shown, and a picture of the node every second as long as somebody looks.

import { findToken, forgetToken, get, useToken } from "./api.js";
import { Channels } from "./channels.js";
import { h, say, set, short } from "./dom.js";
import { Letters } from "./letters.js";
import { Messages, Story } from "./messages.js";
import { Overview } from "./overview.js";
import { Schedules } from "./schedules.js";
import { verdict } from "./states.js";

const EVERY = 1000;
const PATIENCE = 4000;
const main = document.getElementById("main");

class Page {
  constructor() {
    this.last = null;
    this.timer = null;
    this.said = { node: "", link: "" };
    this.views = { overview: new Overview(this), channels: new Channels(this), letters: new Letters(this),
      schedules: new Schedules(this), messages: new Messages(this) };
    addEventListener("hashchange", () => this.turn());
    addEventListener("resize", () => this.last && this.view.show(this.last));
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
    this.turn();
    this.refresh();
  }

  /** Show the view that the address names. */
  turn() {
    const hash = location.hash.slice(1);
    if (hash === "main") return;
    const [name, id] = hash.split("/");
    this.view = name === "message" && id ? new Story(this, decodeURIComponent(id)) : this.views[name] || this.views.overview;
    for (const link of document.querySelectorAll("#tabs a")) {
      const here = this.views[link.hash.slice(1)] === this.view || (link.hash === "#messages" && this.view instanceof Story);
      set(link, { "aria-current": here ? "page" : null });
    }
    main.replaceChildren(this.view.element);
    scrollTo(0, 0);
    if (this.last) this.view.show(this.last);
  }

  /** Ask now, and again after a while; not while nobody looks. */
  async refresh() {
    clearTimeout(this.timer);
    let wait = EVERY;
    try {
      const picture = await get("/api/snapshot");
      if (!this.last || picture.snapshot.at !== this.last.snapshot.at) {
        for (const view of Object.values(this.views)) view.take(picture);
      }
      this.last = picture;
      this.head(picture.snapshot);
      this.view.show(picture);
      this.tell("link", "");
    } catch (error) {
      if (!this.failed(error)) return;
      wait = PATIENCE;
    }
    clearTimeout(this.timer);
    if (!document.hidden) this.timer = setTimeout(() => this.refresh(), wait);
  }

  head(snapshot) {
    document.title = `${snapshot.node} – dropr`;
    say(document.getElementById("title"), snapshot.node);
    const { tone, sign, text } = verdict(snapshot);
    const place = document.getElementById("verdict");
    set(place, { class: `verdict ${tone}` });
    say(place, `${sign} ${text}`);
    const letters = snapshot.dead_letters.outbox + snapshot.dead_letters.inbox;
    const count = document.getElementById("letters-count");
    count.hidden = letters === 0;
    say(count, short(letters));
  }

  /** Something that the node said is wrong with its processes; empty: nothing is. */
  trouble(text) {
    this.tell("node", text);
  }

  tell(what, text) {
    this.said[what] = text;
    const place = document.getElementById("trouble");
    const shown = this.said.link || this.said.node;
    place.hidden = !shown;
    say(place, shown);
  }

  /** An answer that was none; false: the token is not the node's, and everything begins anew. */
  failed(error) {
    if (error.status === 401) {
      forgetToken();
      clearTimeout(this.timer);
      login(error.message);
      return false;
    }
    if (error.status === undefined) throw error;
    if (error.status === 0 || error.status >= 500) this.tell("link", error.message);
    return true;
  }
}

/** Ask for the token. */
function login(why) {
  const input = h("input", { type: "password", name: "token", required: true, autocomplete: "off", "aria-describedby": "why" });
  const form = h("form", { class: "card login" }, h("h2", {}, "Who are you?"),
    h("p", { id: "why" }, why || "This page needs the node's token. “dropr dashboard”, on the node's machine, shows a link with it."),
    h("label", {}, "Token", input), h("button", { type: "submit", class: "main" }, "Look"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    useToken(input.value);
    location.reload();
  });
  set(document.getElementById("tabs"), { hidden: "" });
  say(document.getElementById("verdict"), "");
  main.replaceChildren(form);
  input.focus();
}

if (await findToken()) new Page();
else login("");
