// Builds the page into the package data of the Python client, with a list of its files.

import { build } from "esbuild";
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL("..", import.meta.url));
const target = join(here, "../python/bucketd_client/ctl/console/web");
const TYPES = {
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
  ".txt": "text/plain; charset=utf-8",
};

await rm(target, { recursive: true, force: true });
await mkdir(target, { recursive: true });
const built = await build({
  entryPoints: [join(here, "src/main.tsx"), join(here, "src/main.css")],
  outdir: target,
  bundle: true,
  format: "esm",
  splitting: true,
  minify: true,
  legalComments: "none",
  metafile: true,
  target: ["chrome109", "firefox115", "safari16.4"],
  jsx: "automatic",
  jsxImportSource: "preact",
  logLevel: "warning",
});
for (const name of ["index.html", "icon.svg"]) {
  await copyFile(join(here, "src", name), join(target, name));
}
await writeFile(join(target, "licenses.txt"), await licenses(Object.keys(built.metafile.inputs)));
const files = {};
for (const name of (await readdir(target)).sort()) {
  files[name === "index.html" ? "/" : `/${name}`] = [name, TYPES[extname(name)]];
}
// The list is written last: what is built halfway does not count as built.
await writeFile(join(target, "files.json"), `${JSON.stringify(files, null, 1)}\n`);

/** Return the licenses of the packages of which something is bundled. */
async function licenses(inputs) {
  const names = inputs.map((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1]);
  const texts = [...new Set(names.filter(Boolean))].sort().map(async (name) => {
    const text = await readFile(join(here, "node_modules", name, "LICENSE"), "utf8");
    return `${name}\n\n${text.trim()}\n`;
  });
  return (await Promise.all(texts)).join(`\n${"-".repeat(80)}\n\n`);
}
