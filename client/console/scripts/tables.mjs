// Writes the tables of docs/console.md out of the steps that the browser tests have taken.

import { gzipSync } from "node:zlib";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL("..", import.meta.url));
const page = join(here, "../../docs/console.md");
const web = join(here, "../python/bucketd_client/ctl/console/web");

const steps = [];
for (const name of ["attacks", "pages", "speed"]) {
  steps.push(...JSON.parse(await readFile(join(here, "build/steps", `${name}.json`), "utf8")));
}
const seconds = (step) => step.seconds.toFixed(1);
const attacks = steps.filter(({ suite }) => suite === "attacks");
const others = steps.filter(({ suite }) => suite !== "attacks");
const attackRows = attacks.map((step) => {
  const at = step.step.lastIndexOf(": ");
  return `| ${step.step.slice(0, at)} | ${step.step.slice(at + 2)} | ${seconds(step)} |`;
});
const stepRows = others.map((step) => `| ${step.suite} | ${step.step} | ${seconds(step)} |`);
const figures = others.filter(({ told }) => told).map(({ step, told }) => `- ${step}: ${told}`);
let [plain, compressed] = [0, 0];
for (const name of await readdir(web)) {
  const data = await readFile(join(web, name));
  plain += data.length;
  compressed += gzipSync(data, { level: 9 }).length;
}
const kilobytes = (bytes) => `${Math.round(bytes / 1024)} KiB`;
figures.push(`- all files of the page: ${kilobytes(plain)} on disk, ${kilobytes(compressed)} compressed`);

let text = await readFile(page, "utf8");
text = put(text, "attacks", ["| attack | outcome | seconds |", "| --- | --- | --- |", ...attackRows]);
text = put(text, "steps", ["| page | step | seconds |", "| --- | --- | --- |", ...stepRows, "", ...figures]);
await writeFile(page, text);

function put(whole, name, lines) {
  const [open, close] = [`<!-- ${name} -->`, `<!-- /${name} -->`];
  const [from, to] = [whole.indexOf(open) + open.length, whole.indexOf(close)];
  return `${whole.slice(0, from)}\n${lines.join("\n")}\n${whole.slice(to)}`;
}
