// The first view: how the node is, who it talks to, how fast.

import { Chart } from "./chart.js";
import { age, h, keyed, rate, say, set, short, size } from "./dom.js";
import { Graph } from "./graph.js";
import { badge, press, table } from "./parts.js";
import { peerSentence, peerState } from "./states.js";

export class Overview {
  constructor(context) {
    this.context = context;
    this.graph = new Graph((peer) => this.choose(peer));
    this.tiles = h("dl", { class: "tiles" });
    this.speed = new Chart("Messages per second", [{ name: "out", tone: "one" }, { name: "in", tone: "two" }, { name: "processed", tone: "three" }], rate);
    this.backlog = new Chart("Waiting to go out", [{ name: "messages", tone: "one" }], (n) => short(Math.round(n)));
    this.oldest = new Chart("Oldest that waits", [{ name: "out", tone: "one" }, { name: "in", tone: "two" }], age);
    this.peers = table("Peers", ["peer", "state", "waiting>", "oldest>", "out>", "in>", "dead>", ""]);
    this.processes = h("ul", { class: "processes" });
    this.element = h("div", { class: "view" },
      h("section", { class: "card stage", "aria-label": "Topology" }, this.graph.element),
      this.tiles,
      h("div", { class: "plots" }, this.speed.element, this.backlog.element, this.oldest.element),
      h("section", { class: "card" }, h("h2", {}, "Peers"), this.peers.element),
      h("section", { class: "card" }, h("h2", {}, "Processes"), this.processes));
  }

  /** Show a peer's row, from the picture. */
  choose(peer) {
    const row = [...this.peers.body.children].find((one) => one.dataset.peer === peer);
    if (!row) return;
    row.scrollIntoView({ block: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    row.focus({ preventScroll: true });
  }

  /** Called with each picture, shown or not: the charts go on. */
  take({ snapshot, rates }) {
    const out = snapshot.peers.reduce((sum, one) => sum + one.waiting, 0);
    const oldest = (list) => Math.max(0, ...list.map((one) => one.oldest || 0));
    this.speed.add(snapshot.at, [rates ? rates.total.shipped : null, rates ? rates.total.received : null, rates ? rates.total.processed : null]);
    this.backlog.add(snapshot.at, [out]);
    this.oldest.add(snapshot.at, [oldest(snapshot.peers), oldest(snapshot.channels)]);
  }

  show({ snapshot, rates }) {
    this.graph.show(snapshot, rates);
    this.showTiles(snapshot);
    this.showPeers(snapshot, rates);
    this.showProcesses(snapshot, rates);
  }

  showTiles(snapshot) {
    const sum = (list, name) => list.reduce((total, one) => total + one[name], 0);
    const letters = snapshot.dead_letters.outbox + snapshot.dead_letters.inbox;
    const { disk } = snapshot;
    const tiles = [
      ["waiting to go out", short(sum(snapshot.peers, "waiting")), size(sum(snapshot.peers, "bytes")), "calm"],
      ["ready here", short(sum(snapshot.channels, "ready")), `${short(sum(snapshot.channels, "leased"))} being handled`, "calm"],
      ["receipts awaited", short(sum(snapshot.peers, "awaiting")), "accepted, not reported yet", "calm"],
      ["dead letters", short(letters), letters ? "they need somebody" : "none", letters ? "warn" : "calm"],
      ["free on the disk", size(disk.free), `${disk.whole ? "" : "more than "}${size(disk.used)} used by the node`, disk.free <= disk.floor ? "bad" : "calm"],
    ];
    keyed(this.tiles, tiles, (one) => one[0],
      ([name]) => {
        const value = h("span", { class: "value" });
        const more = h("small");
        return { element: h("div", {}, h("dt", {}, name), h("dd", {}, value, more)), value, more };
      },
      (tile, [, value, more, tone]) => {
        say(tile.value, value);
        say(tile.more, more);
        set(tile.element, { class: `tile ${tone}` });
      });
  }

  showPeers(snapshot, rates) {
    const after = () => this.context.refresh();
    keyed(this.peers.body, snapshot.peers, (one) => one.peer,
      (peer) => {
        const part = { state: h("span"), why: h("small", { class: "why" }), cells: ["waiting", "oldest", "out", "in", "dead"].map((name) => h("td", { class: "number", "data-label": name })) };
        const ask = {
          title: `Hold ${peer.peer}?`, button: "Hold", reason: "Why, for whoever looks next",
          text: "Nothing more is shipped to it until it is released. Sending to it goes on and is kept.",
        };
        part.hold = press("Hold", "hold", { peer: peer.peer }, { asks: ask, after, title: `Hold ${peer.peer}` });
        part.release = press("Release", "release", { peer: peer.peer }, { after, title: `Release ${peer.peer}` });
        part.retry = press("Try now", "retry", { peer: peer.peer }, { after, title: `Try ${peer.peer} now` });
        part.element = h("tr", { tabindex: -1, "data-peer": peer.peer },
          h("th", { scope: "row" }, peer.peer, h("small", { class: "url" }, peer.url || "")),
          h("td", {}, part.state, part.why), part.cells,
          h("td", { class: "acts" }, part.retry, part.hold, part.release));
        return part;
      },
      (part, peer) => {
        const speed = rates && rates.peers[peer.peer];
        part.state.replaceChildren(badge(peerState(peer)));
        say(part.why, peerSentence(peer, age));
        const dead = peer.dead + peer.failed;
        [short(peer.waiting), age(peer.oldest), speed ? rate(speed.shipped) : "–", speed ? rate(speed.received) : "–", dead]
          .forEach((text, at) => say(part.cells[at], text));
        set(part.cells[4], { class: dead ? "number warn" : "number" });
        part.hold.hidden = peer.held;
        part.release.hidden = !peer.held;
        part.retry.hidden = !["resting", "refused"].includes(peer.state);
      });
  }

  showProcesses(snapshot, rates) {
    const run = snapshot.processes;
    const list = [];
    if (run.angel) list.push(["angel", run.angel, ""]);
    if (run.daemon) list.push(["daemon", run.daemon, run.daemon.store || "carries what waits"]);
    run.servers.forEach((one) => list.push(["server", one, one.urls.join(", ") || "no doors"]));
    run.gateways.forEach((one) => list.push(["gateway", one, Object.keys(one.urls).join(", ")]));
    run.monitors.forEach((one) => list.push(["monitor", one, one.urls.join(", ")]));
    run.workers.forEach((one) => list.push(["worker", one, `${one.at_work} at work${one.longest ? `, one for ${age(one.longest.seconds)}` : ""}`]));
    if (!list.length) list.push(["nothing runs here", { pid: 0 }, "“dropr up” starts everything"]);
    keyed(this.processes, list, ([role, one]) => `${role} ${one.pid}`,
      () => {
        const name = h("b");
        const more = h("span");
        return { element: h("li", {}, name, more), name, more };
      },
      (part, [role, one, more]) => {
        say(part.name, one.pid ? `${one.name || role} ${one.pid}` : one.name || role);
        const cpu = rates && rates.cpu[one.pid];
        const facts = [more, one.memory ? size(one.memory) : "", cpu !== undefined && cpu !== null ? `${Math.round(cpu * 100)} % of a core` : "", one.since ? `up ${age(one.since)}` : ""];
        say(part.more, facts.filter(Boolean).join(" · "));
      });
    const down = run.angel ? run.angel.children.filter((one) => one.state !== "running") : [];
    if (down.length) this.context.trouble(down.map((one) => `${one.name}: ${one.state}${one.last_exit ? `, last ${one.last_exit}` : ""}`).join("; "));
    else this.context.trouble("");
  }
}
