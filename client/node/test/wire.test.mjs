// Golden cases: a call in an environment, the request it must make, the answer it is given
// and what must come of it. `request: null` means that nothing may be sent; a header that is
// null must be absent; `guard` is the ETag of a guarded write; `result` and `raises` name the
// members that matter, `returns` is exact. A response is bytes where it is `raw`, or none, and
// `closes` ends each connection behind them, so that a read is made more than once; `seconds` is
// the time limit.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { Bucket, agent } from "../dist/index.mjs";
import { Fake, answer } from "./support/fake.mjs";
import { environment } from "./support/temp.mjs";

// The Python client's tests read the same files.
const folder = new URL("../../../tests/wire/", import.meta.url);
const files = readdirSync(folder).map((name) => new URL(name, folder));
const cases = files.flatMap((file) => JSON.parse(readFileSync(file, "utf8")));

function subject({ on, options, seconds }, socket) {
  const timeout = seconds && { timeout: 1000 * seconds };
  if (on === "Bucket") return new Bucket({ ...options, ...timeout, socket });
  return { "agent.bucket": agent.utils.bucket, "agent.deviceBucket": agent.utils.deviceBucket }[on];
}

function assertRequest(made, wanted) {
  assert.deepEqual([made.method, made.target], [wanted.method, wanted.target]);
  for (const [name, value] of Object.entries(wanted.headers)) assert.equal(made.headers[name] ?? null, value, name);
  const body = made.body ? JSON.parse(made.body) : undefined;
  assert.deepEqual(body, wanted.body);
}

function assertMembers(actual, wanted) {
  for (const [name, value] of Object.entries(wanted)) assert.deepEqual(actual[name], value, name);
}

async function assertOutcome(call, wanted) {
  if (wanted.raises) {
    const error = await call.then(() => assert.fail("the call was to fail"), (reason) => reason);
    return assertMembers(error, wanted.raises);
  }
  const value = await call;
  if (wanted.result) return assertMembers(value, wanted.result);
  return assert.deepEqual(value, wanted.returns);
}

for (const wanted of cases) {
  test(`wire: ${wanted.name}`, async (t) => {
    const { response } = wanted;
    const fake = await Fake.start(t, (request, socket) => {
      if (response.status) return answer(response.status, response.body, response.headers);
      socket[response.closes ? "end" : "write"](response.raw ?? "");
    });
    environment(t, { ...wanted.env, BUCKETD_SOCKET: fake.path });
    const { method, guard } = wanted.call;
    const args = guard === undefined ? wanted.call.args : [...wanted.call.args, { ifMatch: guard }];
    await assertOutcome(subject(wanted.call, fake.path)[method](...args), wanted);
    const { length } = fake.requests;
    assert.ok(response?.closes && method === "get" ? length > 1 : length === (wanted.request ? 1 : 0), `${length} requests`);
    if (wanted.request) assertRequest(fake.requests[0], wanted.request);
  });
}

test("there are wire cases", () => assert.ok(cases.length > 20));
