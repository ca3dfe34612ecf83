import assert from "node:assert/strict";
import { test } from "node:test";
import { namesOfPath, Table, view, visibleRange, type Hold } from "../../src/cells.js";

function row(device: string, job: string | null, automation: string | null = null, revision = 1) {
  return { device, job, automation, revision, size: 10, updated_at: "2026-01-01T00:00:00.000Z" };
}

const hold = (id: string, device: string, job: string | null, state = "held"): Hold => ({
  id,
  device,
  job,
  state,
  name: "",
  exclusive: false,
  label: null,
  since: "2026-01-01T00:00:00.000Z",
  connected: true,
  by: { user: "ada", uid: 1, pid: 2 },
  host: "farm",
});

test("devices and jobs come in the order people count in", () => {
  const table = new Table();
  for (const device of ["phone-10", "phone-2", "Phone-1"]) table.put(row(device, "b"));
  table.put(row("phone-2", null));
  table.put(row("phone-2", "a"));
  assert.deepEqual(view(table, "").view, {
    devices: ["Phone-1", "phone-2", "phone-10"],
    jobs: [null, "a", "b"],
    count: 5,
  });
});

test("every word of a filter must match", () => {
  const table = new Table();
  table.put(row("phone-1", "login", "Accounts"));
  table.put(row("phone-2", "login"));
  table.put(row("phone-2", null));
  table.putDamaged("devices/phone-3/jobs/a%2Fb.json");
  table.setHold(hold("1", "phone-2", null), true);
  table.setViolations("Accounts", new Map([['["phone-1","login"]', 2]]));
  const found = (filter: string): string[] =>
    [...view(table, filter).shown].map((cell) => `${cell.device}:${cell.job}`).sort();
  assert.deepEqual(found("PHONE login"), ["phone-1:login", "phone-2:login"]);
  assert.deepEqual(found("accounts"), ["phone-1:login"]);
  assert.deepEqual(found("(device)"), ["phone-2:null"]);
  assert.deepEqual(found("is:held"), ["phone-2:login", "phone-2:null"]);
  assert.deepEqual(found("is:violating"), ["phone-1:login"]);
  assert.deepEqual(found("is:damaged"), ["phone-3:a/b"]);
  assert.deepEqual(found("is:held phone-1"), []);
});

test("an event makes, changes and removes a cell", () => {
  const table = new Table();
  const event = { device: "d", job: "j", revision: 1, set: { a: 1 }, removed: [] };
  const cell = table.apply(event, 5000);
  assert.ok(cell);
  assert.deepEqual([cell.revision, cell.updatedAt, cell.flashes], [1, 5000, 1]);
  const [structure, version] = [table.structure, cell.version];
  table.apply({ ...event, revision: 2 }, 6000);
  // A change of what is there already makes nobody sort or filter anew.
  assert.equal(table.structure, structure);
  assert.ok(cell.version > version);
  assert.equal(table.apply({ ...event, revision: 0 }, 7000), null);
  assert.equal(table.cells.size, 0);
});

test("a damaged bucket is whole again after a write", () => {
  const table = new Table();
  table.putDamaged("devices/d/jobs/j.json");
  assert.equal(table.at("d", "j")?.damaged, true);
  table.apply({ device: "d", job: "j", revision: 3, set: {}, removed: [] }, 1);
  assert.equal(table.at("d", "j")?.damaged, false);
});

test("a hold of the device holds all of its buckets, until it ends", () => {
  const table = new Table();
  table.put(row("d", "j"));
  table.put(row("d", null));
  table.setHold(hold("1", "d", null), true);
  table.setHold(hold("2", "d", "j", "waiting"), true);
  assert.equal(table.heldBy("d", "j")?.id, "1");
  table.setHold(hold("1", "d", null), false);
  assert.equal(table.heldBy("d", "j"), undefined);
  table.setHold(hold("2", "d", "j", "held"), true);
  assert.equal(table.heldBy("d", "j")?.id, "2");
  assert.equal(table.heldBy("d", null), undefined);
  table.clearHolds();
  assert.equal(table.heldBy("d", "j"), undefined);
});

test("names are told from the path of a file, where they can be", () => {
  assert.deepEqual(namesOfPath("devices/a%20b/jobs/c%2Fd.json"), { device: "a b", job: "c/d" });
  assert.deepEqual(namesOfPath("devices/a/device.json"), { device: "a", job: null });
  for (const path of ["devices/a~0123/device.json", "other/a.json", "devices/%FF/device.json"]) {
    assert.equal(namesOfPath(path), null);
  }
});

test("only what is seen is drawn, with a margin", () => {
  assert.deepEqual(visibleRange(0, 100, 10, 500, 2), [0, 12]);
  assert.deepEqual(visibleRange(2000, 100, 10, 500, 2), [198, 212]);
  assert.deepEqual(visibleRange(4950, 100, 10, 500, 2), [493, 500]);
  assert.deepEqual(visibleRange(9999, 100, 10, 3, 2), [3, 3]);
  assert.deepEqual(visibleRange(0, 0, 10, 0, 2), [0, 0]);
});
