// The types as a program that depends on the packed package meets them, under tsc --strict.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cpSync, rmSync } from "node:fs";
import { after, test } from "node:test";
import { promisify } from "node:util";
import { TSC, consumer } from "./support/pack.mjs";

const run = promisify(execFile);
const dir = consumer();
cpSync(new URL("types", import.meta.url), dir, { recursive: true });
after(() => rmSync(dir, { recursive: true, force: true }));

async function tsc(flags, ...files) {
  // The directory has no @types/node: the declarations have to do without.
  // TypeScript's own are taken as right; to check them as well is most of the work.
  const shared = ["--strict", "--noEmit", "--lib", "ES2022,DOM", "--target", "ES2022", "--skipDefaultLibCheck"];
  const args = [TSC, ...shared, ...flags.split(" "), ...files];
  const { code, stdout } = await run(process.execPath, args, { cwd: dir }).then(
    () => ({ code: 0, stdout: "" }),
    (error) => error,
  );
  return { code, stdout };
}

const compiles = async (flags, ...files) => assert.deepEqual(await tsc(flags, ...files), { code: 0, stdout: "" });

const NODE = "--module nodenext --moduleResolution nodenext";
const typed = "augmented/bucketd-types.d.ts";

for (const flags of [NODE, "--module node16 --moduleResolution node16"]) {
  test(`import and require compile: ${flags}`, () =>
    compiles(flags, "author.mts", "bucket.mts", "common.cts", "classic.ts", "testing.mts"));
}

test("import compiles with moduleResolution bundler", () =>
  compiles("--module esnext --moduleResolution bundler", "author.mts", "bucket.mts", "classic.ts", "testing.mts"));

test("import compiles with moduleResolution node10, to CommonJS and to ES modules", async () => {
  await compiles("--module commonjs --moduleResolution node10", "classic.ts", "testing-classic.ts");
  await compiles("--module esnext --moduleResolution node10", "author.mts", "classic.ts");
});

test("the declarations themselves hold under the strictest flags", () =>
  compiles(`${NODE} --exactOptionalPropertyTypes --noUncheckedIndexedAccess --isolatedModules`, "author.mts", "bucket.mts"));

test("an augmentation types agent.utils without a cast, for import and require at once", () =>
  compiles(NODE, typed, "augmented/typed.mts", "augmented/typed.cts"));

test("an augmentation works with moduleResolution bundler and node10", async () => {
  await compiles("--module esnext --moduleResolution bundler", typed, "augmented/typed.mts");
  await compiles("--module esnext --moduleResolution node10", typed, "augmented/typed.mts");
});

test("with an augmentation a misspelt key and a wrong type do not compile", async () => {
  const misspelt = await tsc(NODE, typed, "augmented/misspelt.mts");
  assert.notEqual(misspelt.code, 0);
  assert.match(misspelt.stdout, /misspelt\.mts\(3,.*sesionToken/);
  const mistyped = await tsc(NODE, typed, "augmented/mistyped.mts");
  assert.notEqual(mistyped.code, 0);
  assert.match(mistyped.stdout, /mistyped\.mts\(3,.*TS2322/);
});

test("without an augmentation the same files compile", () =>
  compiles(NODE, "augmented/misspelt.mts", "augmented/mistyped.mts"));
