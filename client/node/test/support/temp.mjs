import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A directory that is removed after the test; its path is short enough for sockets. */
export function tempDir(t) {
  const dir = mkdtempSync(join(tmpdir(), "bucketd-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** Set the BUCKETD_* environment to exactly `variables` for the length of a test. */
export function environment(t, variables) {
  const before = { ...process.env };
  for (const name of Object.keys(process.env)) {
    if (name.startsWith("BUCKETD_")) delete process.env[name];
  }
  Object.assign(process.env, variables);
  t.after(() => {
    for (const name of Object.keys(process.env)) if (!(name in before)) delete process.env[name];
    Object.assign(process.env, before);
  });
}
