// Compiles the tests of a folder (default: unit; another word chooses some) into build/ and runs them with node --test.

import { build } from "esbuild";
import { spawnSync } from "node:child_process";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL("..", import.meta.url));
const kind = process.argv[2] ?? "unit";
const folder = join(here, "test", kind);
const outdir = join(here, "build", kind);
const only = process.argv[3] ?? "";
const tests = (await readdir(folder))
  .filter((name) => name.endsWith(".test.ts") && name.includes(only))
  .sort();

await rm(outdir, { recursive: true, force: true });
await build({
  entryPoints: tests.map((name) => join(folder, name)),
  outdir,
  outExtension: { ".js": ".mjs" },
  bundle: true,
  platform: "node",
  format: "esm",
  packages: "external",
  sourcemap: "inline",
  logLevel: "warning",
});
const files = tests.map((name) => join(outdir, name.replace(/ts$/, "mjs")));
// One file after another: a browser and its daemon would take the time from each other.
const run = spawnSync(
  process.execPath,
  ["--enable-source-maps", "--test", "--test-concurrency=1", "--test-reporter=spec", ...files],
  { stdio: "inherit", cwd: here },
);
process.exit(run.status ?? 1);
