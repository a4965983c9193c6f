// A beanstalk client for the tests: lines of JSON in and out. node beanstalk.js jackd|fivebeans PORT
// [verb, argument …] → the answer; an error as {"error": …}.
const readline = require("readline");
const [library, port] = process.argv.slice(2);

async function jackd() {
  const Jackd = require("jackd");
  const client = new (Jackd.default || Jackd)();
  await client.connect({ host: "127.0.0.1", port: Number(port) });
  return {
    use: (tube) => client.use(tube),
    watch: (tube) => client.watch(tube),
    put: (body, priority, delay, ttr) => client.put(body, { priority, delay, ttr }),
    reserve: async (seconds) => {
      const { id, payload } = await client.reserveWithTimeout(seconds);
      return [String(id), payload.toString()];
    },
    delete: (id) => client.delete(id),
    release: (id, priority, delay) => client.release(id, { priority, delay }),
    bury: (id, priority) => client.bury(id, priority),
    kick: (bound) => client.kick(bound),
    stats: () => client.stats(),
  };
}

async function fivebeans() {
  const { client: Client } = require("fivebeans");
  const client = new Client("127.0.0.1", Number(port));
  await new Promise((resolve, reject) => client.on("connect", resolve).on("error", reject).connect());
  const call = (verb, ...words) =>
    new Promise((resolve, reject) =>
      client[verb](...words, (error, ...values) => (error ? reject(new Error(String(error))) : resolve(values))));
  const first = async (...words) => (await call(...words))[0];
  return {
    use: (tube) => first("use", tube),
    watch: (tube) => first("watch", tube),
    put: (body, priority, delay, ttr) => first("put", priority, delay, ttr, body),
    reserve: async (seconds) => {
      const [id, payload] = await call("reserve_with_timeout", seconds);
      return [String(id), payload.toString()];
    },
    delete: (id) => first("destroy", id),
    release: (id, priority, delay) => first("release", id, priority, delay),
    bury: (id, priority) => first("bury", id, priority),
    kick: (bound) => first("kick", bound),
    stats: () => first("stats"),
  };
}

(async () => {
  const verbs = await { jackd, fivebeans }[library]();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [verb, ...words] = JSON.parse(line);
    let answer;
    try {
      answer = (await verbs[verb](...words)) ?? null;
    } catch (error) {
      answer = { error: error.message || String(error) };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
  process.exit(0);
})();
