// The EventSource of browsers, in Node.js: eventsource.js URL CHANNEL COUNT. Shows what it gets, settles each message with
// a request of its own, and connects again by itself when the server goes away.
const { EventSource } = require("eventsource");

const [url, channel, count] = process.argv.slice(2);
const got = [];
let settled = 0;
const source = new EventSource(`${url}/channels/${channel}/stream?window=2`);
source.onopen = () => process.stderr.write("open\n");
source.addEventListener("message", async (event) => {
  const message = JSON.parse(event.data);
  const seen = [message.text, event.lastEventId === message.id];
  got.push(seen); // in the order of the stream: answers to two requests under way may come in any
  const answer = await fetch(`${url}/leases/${message.handle}/ack`, { method: "POST" });
  seen.push(answer.status);
  settled += 1;
  process.stderr.write("settled\n");
  if (settled === Number(count)) {
    source.close();
    console.log(JSON.stringify(got));
  }
});
