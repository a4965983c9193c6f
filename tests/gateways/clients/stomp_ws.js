// @stomp/stompjs over WebSocket: sends what its arguments say, and shows what it gets. stomp_ws.js URL QUEUE BODY...
const { Client } = require("@stomp/stompjs");
const WebSocket = require("ws");

const [url, queue, ...bodies] = process.argv.slice(2);
const got = [];
const client = new Client({
  brokerURL: url,
  webSocketFactory: () => new WebSocket(url, ["v12.stomp"]),
  reconnectDelay: 0,
  onStompError: (frame) => { console.error(frame.headers.message); process.exit(1); },
  onConnect: () => {
    client.watchForReceipt("sent", () => client.subscribe(queue, (message) => {
      message.ack();
      got.push([message.body, message.headers.colour]);
      if (got.length === bodies.length) {
        console.log(JSON.stringify([client.connectedVersion, got]));
        client.deactivate().then(() => process.exit(0));
      }
    }, { id: "s", ack: "client-individual" }));
    bodies.forEach((body, at) => client.publish({
      destination: queue, body, headers: { colour: "red", ...(at === bodies.length - 1 ? { receipt: "sent" } : {}) },
    }));
  },
});
client.activate();
