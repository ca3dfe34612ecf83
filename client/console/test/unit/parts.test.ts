import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { age, counted, size } from "../../src/format.js";
import { figures, parseMetrics } from "../../src/metrics.js";
import { fragmentOf, parseRoute, type Route } from "../../src/router.js";
import { bucketPath, curl, python, typescript } from "../../src/snippets.js";
import { EventParser } from "../../src/sse.js";

const STREAM = 'retry: 1000\nid: 1.5\n\n: heartbeat\n\nevent: bucket\r\nid: 1.6\ndata: {"a":\ndata: "ü"}\n\n';

test("events are the same in whatever pieces they come", () => {
  const whole = new EventParser().feed(STREAM);
  assert.deepEqual(whole, [
    { event: "", id: "1.5", data: "" },
    { event: "bucket", id: "1.6", data: '{"a":\n"ü"}' },
  ]);
  for (let cut = 0; cut <= STREAM.length; cut++) {
    const parser = new EventParser();
    assert.deepEqual([...parser.feed(STREAM.slice(0, cut)), ...parser.feed(STREAM.slice(cut))], whole);
  }
  const parser = new EventParser();
  assert.deepEqual([...STREAM].flatMap((char) => parser.feed(char)), whole);
});

test("ages and sizes are short", () => {
  assert.deepEqual([0.4, 1, 59, 60, 3599, 3600, 86399, 86400 * 400].map(age), [
    "now", "1 s", "59 s", "1 min", "59 min", "1 h", "23 h", "400 d",
  ]);
  assert.deepEqual([0, 1023, 1024, 1536, 10 * 1024, 1048576, 5 * 2 ** 40].map(size), [
    "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "10 KiB", "1.0 MiB", "5.0 TiB",
  ]);
  assert.deepEqual([1, 0, 5000].map((n) => counted(n, "bucket")), ["1 bucket", "0 buckets", "5,000 buckets"]);
});

const EARLIER = parseMetrics(`# HELP bucketd_requests_total Requests.
bucketd_requests_total{route="/v1/bucket",method="GET",status="200"} 10.0
bucketd_requests_total{route="/metrics",method="GET",status="200"} 2.0
bucketd_fsync_seconds_sum 0.5
bucketd_fsync_seconds_count 100
bucketd_commits_total 7
bucketd_watchers 3
`);

test("figures are rates between two readings", () => {
  const later = new Map(EARLIER)
    .set("bucketd_requests_total", 32)
    .set("bucketd_fsync_seconds_sum", 0.6)
    .set("bucketd_fsync_seconds_count", 150);
  const found = figures(EARLIER, later, 2, 99);
  assert.equal(found.requests, 10);
  assert.equal(found.commits, 0);
  assert.ok(Math.abs((found.syncMilliseconds ?? 0) - 2) < 1e-9);
  assert.equal(found.watchers, 3);
});

test("after a restart of the daemon, and without a sync, there is no rate", () => {
  const anew = new Map([["bucketd_requests_total", 1], ["bucketd_watchers", 1]]);
  assert.deepEqual(figures(EARLIER, anew, 2, 5), { at: 5, requests: null, commits: null, syncMilliseconds: null, watchers: 1 });
  assert.equal(figures(EARLIER, EARLIER, 2, 5).syncMilliseconds, null);
});

const ROUTES: Route[] = [
  { page: "grid" },
  { page: "overview" },
  { page: "inputs", automation: null },
  { page: "inputs", automation: "a/b" },
  { page: "bucket", name: { device: "phone 1/ü#?", job: "%2F" } },
  { page: "bucket", name: { device: "..", job: null } },
];

test("each page has an address that leads back to it", () => {
  for (const route of ROUTES) assert.deepEqual(parseRoute(fragmentOf(route)), route);
});

test("an address of no page shows the grid", () => {
  for (const fragment of ["", "#", "#x", "#/nothing", "#/bucket", "#/bucket/%E0%A4%A", "#ticket=abc"]) {
    assert.deepEqual(parseRoute(fragment), { page: "grid" });
  }
});

const NAMES = [
  { device: "phone-1", job: "login" },
  { device: "it's $HOME `x` \"q\" \\", job: "a b/ü😀" },
  { device: "phone-1", job: null },
];

test("a shell takes the copied curl command as it is meant", () => {
  for (const name of NAMES) {
    const line = curl(name, "/run/x y's.sock").replace(/^curl/, "printf '%s\\n'");
    const words = execFileSync("sh", ["-c", line], { encoding: "utf8" }).split("\n");
    assert.deepEqual(words.slice(0, 3), ["--unix-socket", "/run/x y's.sock", `http://bucketd${bucketPath(name)}`]);
  }
});

test("Python and TypeScript take the copied programs", () => {
  for (const name of NAMES) {
    execFileSync("python3", ["-c", `compile(${JSON.stringify(python(name, "/s"))}, "x", "exec")`]);
    const program = typescript(name, "/s").replace(/^import.*$/m, "").replace("await ", "");
    assert.doesNotThrow(() => new Function(program));
  }
});
