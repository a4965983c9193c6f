// stompit: sends what its arguments say, and shows what it gets. stompit.js PORT QUEUE BODY...
const stompit = require("stompit");

const [port, queue, ...bodies] = process.argv.slice(2);
const fail = (error) => { console.error(error.message); process.exit(1); };

stompit.connect({ host: "127.0.0.1", port: Number(port), connectHeaders: { "heart-beat": "5000,5000" } }, (error, client) => {
  if (error) fail(error);
  client.on("error", fail);
  let left = bodies.length;
  const got = [];
  const receive = () => client.subscribe({ destination: queue, ack: "client-individual" }, (failure, message) => {
    if (failure) fail(failure);
    message.readString("utf-8", (broken, body) => {
      if (broken) fail(broken);
      got.push(body);
      client.ack(message);
      if (got.length === bodies.length) {
        client.disconnect(() => { console.log(JSON.stringify(got)); process.exit(0); });
      }
    });
  });
  for (const body of bodies) {
    client.send({ destination: queue }, { onReceipt: () => { left -= 1; if (left === 0) receive(); } }).end(body);
  }
});
