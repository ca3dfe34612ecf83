// No refusal of the client or of its testing server shows a value: kind and length, keys and paths.
import assert from "node:assert/strict";
import net from "node:net";
import { test } from "node:test";
import { inspect } from "node:util";
import { Bucket, agent } from "../dist/index.mjs";
import { startServer } from "../dist/testing/index.mjs";
import { environment } from "./support/temp.mjs";

const SECRET = "hunter2-secret";
const NUMBER = "7340321987654321";

function assertSilent(shown) {
  for (const value of [SECRET, NUMBER]) assert.ok(!shown.includes(value), shown);
}

/** What a caller can see of an error. */
const shownOf = (error) => [error.message, error.stack, JSON.stringify(error), inspect(error)].join("\n");

const thrower = (thrown) => ({ get key() { throw thrown; } });
class Secret extends Error {}
const circular = { key: SECRET };
circular.self = circular;
const DATA = [
  SECRET, [SECRET], Symbol(SECRET), BigInt(NUMBER), new Error(SECRET), new Map([[SECRET, 1]]), new Date(NaN),
  { key: Symbol(SECRET) }, { key: BigInt(NUMBER) }, { key: [SECRET, undefined] }, { key: () => SECRET }, { key: /hunter2-secret/ },
  { key: new Map([[1, SECRET]]) }, { key: Promise.resolve(SECRET) }, { key: new Error(SECRET) }, { key: new URL(`http://${SECRET}/`) && new Set([SECRET]) },
  { key: `${SECRET}\ud800` }, { key: { toJSON: () => Symbol(SECRET) } }, { toJSON: () => SECRET }, circular,
  thrower(new Error(SECRET)), thrower(new Secret(SECRET)), thrower(new TypeError(`circular ${SECRET}`)), thrower(SECRET),
];

test("data that is refused is not shown", async (t) => {
  environment(t, { BUCKETD_TOKEN: "t", BUCKETD_SOCKET: "/nonexistent/s" });
  let refusals = 0;
  for (const data of DATA) {
    for (const call of [(b) => b.set(data), (b) => b.replace(data), (b) => b.mergePatch(data), (b) => b.jsonPatch([data])]) {
      const error = await call(new Bucket({ timeout: 1 })).then(() => assert.fail("accepted"), (reason) => reason);
      assertSilent(shownOf(error));
      refusals += error.code === "invalid_request";
    }
    assertSilent(JSON.stringify(await agent.utils.bucket.set(data)));
  }
  assert.ok(refusals > 60, `${refusals} refusals`);
});

test("options and contexts that are refused are not shown", async (t) => {
  environment(t, { BUCKETD_SOCKET: "/nonexistent/s" });
  const options = [{ token: `${SECRET}\n${SECRET}` }, { token: "t", timeout: SECRET }, { token: SECRET, timeout: 1 }, { token: SECRET, device: "d" },
    { token: "t", socket: { href: SECRET } }];
  for (const each of options) assertSilent(shownOf(await new Bucket(each).get().catch((error) => error)));
  const writes = [{ ifMatch: `${SECRET}\n` }, SECRET, [SECRET], { ifMatch: Number(NUMBER) }, { misspelt: SECRET }, { returning: SECRET }];
  for (const each of writes) assertSilent(shownOf(await new Bucket({ token: "t" }).set({ a: 1 }, each).catch((error) => error)));
});

/** Send bytes to a socket; resolve to all that comes back. */
function send(path, bytes) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(path, () => socket.end(bytes));
    let text = "";
    socket.setEncoding("utf8").on("data", (data) => (text += data)).on("end", () => resolve(text)).on("error", reject);
  });
}

const BODIES = [
  `{"key": ${SECRET}}`, `{"key": "${SECRET}`, `{"key": "\\x${SECRET}"}`, `{"key": "${SECRET}\n"}`, `{"key": "${SECRET}\\ud800"}`, `"${SECRET}"`, `["${SECRET}"]`,
  `{"key": ${NUMBER.repeat(3)}}`, `{"key": ${NUMBER}e999}`, `{"key": ${NUMBER}${NUMBER}}`, NUMBER, `{"key": "${SECRET}"} ${SECRET}`, `{"key": "${SECRET}${"x".repeat(300)}"}`,
];
const PATCHES = [
  `[{"op": "${SECRET}", "path": "/key"}]`, `[{"op": "add", "path": "${SECRET}", "value": 1}]`, `[{"op": "test", "path": "/key", "value": "${SECRET}"}]`,
  `[{"op": "test", "path": "/key", "value": ${NUMBER}1}]`, `[{"op": "replace", "path": "", "value": "${SECRET}"}]`, `"${SECRET}"`,
];

test("the testing server shows neither what is sent nor what is stored", async (t) => {
  const server = await startServer({ maxBytes: 200 });
  t.after(() => server.close());
  const stored = server.bucket("d", "j");
  const seen = [];
  const ask = async (method, path, body, kind = "application/json", head = "") => {
    const lines = [`${method} ${path} HTTP/1.1`, "Host: x", "Connection: close", `Content-Type: ${kind}`, `Content-Length: ${Buffer.byteLength(body)}`];
    const said = await send(server.socket, `${lines.join("\r\n")}\r\n${head}\r\n${body}`);
    assert.match(said, /^HTTP\/1\.1 4/, `${body} ${said}`);
    assertSilent(said);
    seen.push(said);
  };
  stored.seed({ key: SECRET, number: Number(NUMBER) });
  const bucket = "/v1/devices/d/jobs/j/bucket";
  for (const body of BODIES) {
    for (const method of ["PUT", "PATCH"]) await ask(method, bucket, body);
    await ask("POST", "/v1/contexts", body);
  }
  for (const body of PATCHES) await ask("PATCH", bucket, body.replace("/key", "/number"), "application/json-patch+json");
  await ask("PUT", bucket, "{}", SECRET);
  await ask("PUT", bucket, "{}", "application/json", `If-Match: ${SECRET}\r\n`);
  await ask("PUT", bucket, "{}", "application/json", `Authorization: Bearer ${SECRET}\r\n`);
  await ask("GET", `/v1/${SECRET}`, "");
  await ask("POST", "/v1/contexts", `{"device": "d", "ttl_seconds": "${SECRET}"}`);
  await ask("POST", "/v1/contexts", `{"device": ["${SECRET}"]}`);
  assertSilent(await send(server.socket, `${SECRET}\r\n\r\n`));
  assert.ok(seen.length > 50);
});
