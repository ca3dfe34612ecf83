// One contestant of the benchmarks, in a process of its own:
//
//   node contestant.mjs bucketd|ioredis|node-redis SOCKET get|set CONCURRENCY COUNT [BYTES]
//
// It prints one line of JSON: seconds, operations a second, percentiles of the latency and this
// process's own processor time for each operation, in microseconds. Each of the CONCURRENCY workers has a bucket, or a key, of its own; a value is a
// JSON object of BYTES bytes (1024), which is serialized and parsed as an automation would do it.
import { pathToFileURL } from "node:url";

const CLIENT = new URL("../../client/node/dist/index.mjs", import.meta.url);

/** For each client: how to connect, and for a name the functions that read, write and end. */
const CLIENTS = {
  async bucketd(socket) {
    const { Bucket } = await import(process.env.BUCKETD_CLIENT ? pathToFileURL(process.env.BUCKETD_CLIENT).href : CLIENT.href);
    return {
      open(name) {
        const bucket = new Bucket({ device: "bench", job: name, socket });
        return { get: () => bucket.get(), set: (data) => bucket.set(data) };
      },
      close: () => undefined,
    };
  },
  async ioredis(socket) {
    const { default: Redis } = await import("ioredis");
    const redis = new Redis({ path: socket });
    return { open: (name) => keyed(redis, name), close: () => redis.disconnect() };
  },
  async "node-redis"(socket) {
    const { createClient } = await import("redis");
    const redis = createClient({ socket: { path: socket } });
    await redis.connect();
    return { open: (name) => keyed(redis, name), close: () => redis.destroy() };
  },
};

function keyed(redis, name) {
  return {
    get: async () => JSON.parse(await redis.get(name)),
    set: (data) => redis.set(name, JSON.stringify(data)),
  };
}

/** Return an object of `bytes` bytes as JSON, another one for each `n`. */
function valueOf(bytes, n) {
  const data = { n, filler: "" };
  data.filler = "x".repeat(Math.max(0, bytes - JSON.stringify(data).length));
  return data;
}

/** Make `count` calls in `concurrency` workers; return the latencies in milliseconds. */
async function measure(stores, operation, count, bytes) {
  const latencies = new Float64Array(count);
  let next = 0;
  await Promise.all(
    stores.map(async (store) => {
      for (let n = next++; n < count; n = next++) {
        const data = operation === "set" ? valueOf(bytes, n) : undefined;
        const start = performance.now();
        await store[operation](data);
        latencies[n] = performance.now() - start;
      }
    }),
  );
  return latencies.sort();
}

const [kind, socket, operation, concurrency, count, bytes = "1024"] = process.argv.slice(2);
if (!CLIENTS[kind] || !["get", "set"].includes(operation) || !(concurrency > 0) || !(count > 0)) {
  console.error("usage: node contestant.mjs bucketd|ioredis|node-redis SOCKET get|set CONCURRENCY COUNT [BYTES]");
  process.exit(2);
}
const client = await CLIENTS[kind](socket);
const stores = Array.from({ length: Number(concurrency) }, (_, worker) => client.open(`node-${worker}`));
for (const [worker, store] of stores.entries()) await store.set(valueOf(Number(bytes), -worker));
// The first calls compile the client; they are not measured.
await measure(stores, operation, Math.min(2000, Number(count)), Number(bytes));
const before = process.cpuUsage();
const start = performance.now();
const latencies = await measure(stores, operation, Number(count), Number(bytes));
const seconds = (performance.now() - start) / 1000;
const used = process.cpuUsage(before);
const microseconds = (share) => Math.round(1000 * latencies[Math.min(latencies.length - 1, Math.floor(share * latencies.length))] * 10) / 10;
console.log(
  JSON.stringify({
    client: kind, operation, concurrency: Number(concurrency), count: Number(count), bytes: Number(bytes), seconds,
    per_second: Math.round(Number(count) / seconds), cpu: Math.round((used.user + used.system) / Number(count) * 10) / 10,
    p10: microseconds(0.1), p50: microseconds(0.5), p90: microseconds(0.9), p99: microseconds(0.99),
  }),
);
client.close();
