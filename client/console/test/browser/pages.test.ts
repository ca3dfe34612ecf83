/** What people do in the console, in a browser, upon a real daemon. */

import assert from "node:assert/strict";
import { spawnSync, type ChildProcess } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before } from "node:test";
import type { Browser, BrowserContext, Locator, Page } from "playwright-core";
import {
  checkAccessibility,
  Console,
  Daemon,
  launch,
  openPage,
  picture,
  REPO,
  skip,
  step,
  until,
  writeSteps,
} from "./support.js";

const SCHEMA = {
  fields: [
    { name: "loggedIn", type: "boolean", required: true, description: "Whether the session is open" },
    { name: "user", type: "string", maxLength: 20 },
    { name: "sessionToken", type: "string", secret: true, description: "Of the last login" },
    { name: "opened", type: "number", integer: true, min: 0, defaultValue: 0 },
    { name: "mode", type: "string", enum: ["fast", "careful"] },
    { name: "proxies", type: "array", maxItems: 5, items: { type: "string" } },
    {
      name: "account",
      type: "object",
      properties: [
        { name: "plan", type: "string" },
        { name: "password", type: "string", secret: true },
      ],
    },
  ],
};
const JOBS = ["browse", "comment", "daily", "follow", "like", "login", "message", "search", "upload"];
const FIRST = "/v1/devices/phone-1/jobs/login/bucket";

let daemon: Daemon;
let console_: Console;
let browser: Browser;
let page: Page;
let context: BrowserContext;
let problems: string[];
let holder: ChildProcess | null = null;

before(async () => {
  if (skip) return;
  daemon = await new Daemon().start();
  await fill();
  console_ = await Console.start(daemon);
  browser = await launch();
  ({ page, context, problems } = await openPage(browser, console_.link));
});

after(async () => {
  if (skip) return;
  await browser.close();
  await console_.stop();
  holder?.kill("SIGTERM");
  await daemon.remove();
  writeSteps("pages");
  assert.deepEqual(problems, []);
});

async function fill(): Promise<void> {
  for (let device = 1; device <= 24; device++) {
    for (const job of JOBS) {
      // Some cells stay empty, and one file was never good, so that nothing can take its place.
      if (device % 5 === 4 && job.length > 5) continue;
      if (device === 3 && job === "daily") continue;
      const path = `/v1/devices/phone-${device}/jobs/${job}/bucket?automation=${job}`;
      await daemon.must("PUT", path, {
        loggedIn: device % 3 > 0,
        user: `user-${device}`,
        sessionToken: `t0k3n-${device}`,
        opened: device,
        account: { plan: "pro", password: "s3cr3t" },
        ...(device === 5 && job === "login" ? { mode: "reckless" } : {}),
      });
    }
    await daemon.must("PUT", `/v1/devices/phone-${device}/bucket`, { battery: 90 - device });
  }
  await daemon.must("PUT", "/v1/schemas/login?force=true", SCHEMA);
  writeFileSync(join(daemon.home, "state/devices/phone-3/jobs/daily.json"), "{broken");
  holder = daemon.ctl("run", "--device", "phone-2", "--job", "daily", "--hold", "device", "--exclusive", "--", "sleep", "600");
  await until("the device is held", async () => {
    const { holds } = await daemon.must("GET", "/v1/holds");
    return (holds as unknown[]).length === 1;
  });
}

const go = async (fragment: string): Promise<void> => {
  await page.evaluate((to) => (location.hash = to), fragment);
};
const cell = (device: string, job: string): Locator =>
  page.locator(`.cell[data-device="${device}"][data-job="${job}"]`);
const button = (name: string | RegExp): Locator => page.getByRole("button", { name, exact: typeof name === "string" });
const dialog = (): Locator => page.getByRole("dialog");

// --- devices

step("devices", "the grid shows every state of a bucket", async () => {
  await page.getByRole("grid").waitFor();
  await page.getByText(/^24 devices, \d+ buckets$/).waitFor();
  const held = cell("phone-2", "daily");
  assert.match((await held.getAttribute("title")) ?? "", /phone-2, daily, changed .*held by .*process \d+ on/);
  assert.match((await cell("phone-3", "daily").textContent()) ?? "", /damaged/);
  await until("the violation is told", async () => ((await cell("phone-5", "login").textContent()) ?? "").includes("▲ 1"));
  for (const [place, state] of [[held, "held"], [cell("phone-3", "daily"), "damaged"], [cell("phone-5", "login"), "violating"]] as const) {
    assert.ok(((await place.getAttribute("class")) ?? "").includes(state));
  }
  await picture(page, "devices-light");
});

step("devices", "a change shows by an event, without a poll", async () => {
  const asked: string[] = [];
  const note = (request: { url: () => string }): number => asked.push(request.url());
  await page.waitForTimeout(300);
  page.on("request", note);
  await daemon.must("PATCH", FIRST, { opened: 77 });
  await until("the new revision is shown", async () => ((await cell("phone-1", "login").textContent()) ?? "").includes("r2"));
  assert.ok(((await cell("phone-1", "login").getAttribute("class")) ?? "").includes("flash"));
  await page.waitForTimeout(4000);
  page.off("request", note);
  const lists = asked.filter((url) => url.includes("/v1/buckets"));
  // The size comes by one request for this device; no list is read again and again.
  assert.ok(lists.length <= 1 && lists.every((url) => url.includes("device=phone-1")), lists.join());
});

step("devices", "a new bucket comes, a deleted one goes", async () => {
  await daemon.must("PUT", "/v1/devices/phone-99/jobs/login/bucket", {});
  await page.getByText(/^25 devices/).waitFor();
  await daemon.must("DELETE", "/v1/devices/phone-99/jobs/login/bucket");
  await page.getByText(/^24 devices/).waitFor();
});

step("devices", "the filter takes names and states as they are typed", async () => {
  const filter = page.getByRole("searchbox", { name: "Filter" });
  const count = async (text: string): Promise<string> => {
    await filter.fill(text);
    await page.waitForTimeout(60);
    return (await page.locator(".count").textContent()) ?? "";
  };
  assert.match(await count("phone-2 login"), /^6 devices, 6 buckets of/);
  assert.match(await count("is:damaged"), /^1 device, 1 bucket of/);
  assert.match(await count("is:violating"), /^1 device, 1 bucket of/);
  assert.match(await count("is:held daily"), /^1 device, 1 bucket of/);
  assert.match(await count("nothing"), /^0 devices/);
  await page.getByText("No bucket matches the filter.").waitFor();
  await filter.fill("");
});

step("devices", "the keyboard alone opens a bucket and comes back", async () => {
  await page.locator("body").click({ position: { x: 400, y: 20 } });
  await page.keyboard.press("/");
  await page.keyboard.type("phone-1 l");
  await page.keyboard.press("ArrowDown");
  const label = (): Promise<string | null> => page.locator("#active-cell").getAttribute("title");
  await page.keyboard.press("Control+Home");
  assert.match((await label()) ?? "", /^phone-1, /);
  await page.keyboard.press("End");
  await page.keyboard.press("ArrowDown");
  assert.match((await label()) ?? "", /^phone-10, /);
  await page.keyboard.press("ArrowUp");
  for (let left = 0; left < 9 && !((await label()) ?? "").startsWith("phone-1, login"); left++) {
    await page.keyboard.press("ArrowLeft");
  }
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "phone-1 / login" }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("grid").waitFor();
  await page.getByRole("searchbox").fill("");
});

// --- a bucket

step("bucket", "the tree masks secrets until they are clicked", async () => {
  await go("#/bucket/phone-1/login");
  await page.getByText("user-1", { exact: false }).first().waitFor();
  assert.ok(!(await page.content()).includes("t0k3n-1"));
  assert.ok(!(await page.content()).includes("s3cr3t"));
  await picture(page, "bucket-light");
  await button("Show the secret sessionToken").click();
  await page.getByText('"t0k3n-1"').waitFor();
  assert.ok(!(await page.content()).includes("s3cr3t"));
  await button("Hide the secret sessionToken").click();
  await button("Show the secret sessionToken").waitFor();
});

step("bucket", "keys that others change are highlighted", async () => {
  await daemon.must("PATCH", FIRST, { opened: 78 });
  await page.locator(".tree .changed", { hasText: "opened" }).getByText("78").waitFor();
  assert.equal(await page.locator(".tree .changed").count(), 1);
});

step("bucket", "copies as curl, Python and TypeScript do what they say", async () => {
  const copied = async (name: string): Promise<string> => {
    await button(`Copy as ${name}`).click();
    await page.getByText(`${name} copied`).waitFor();
    return page.evaluate(() => navigator.clipboard.readText());
  };
  const shell = spawnSync("sh", ["-c", await copied("curl")], { encoding: "utf8" });
  assert.match(shell.stdout, /"opened":78/);
  const python = spawnSync(join(REPO, ".venv/bin/python"), ["-c", await copied("Python")], { encoding: "utf8" });
  assert.match(python.stdout, /'opened': 78/);
  const folder = join(REPO, "client/node");
  const built = spawnSync("node", ["--input-type=module", "-e", await copied("TypeScript")], { encoding: "utf8", cwd: folder });
  // Without the built client of a checkout there is nothing to run it on.
  if (!built.stderr.includes("ERR_MODULE_NOT_FOUND")) assert.match(built.stdout, /opened: 78/);
});

const editor = (): Locator => page.locator(".editor .cm-content").first();

/** Replace the text of the editor, as one who pastes it. */
async function type(text: string): Promise<void> {
  await editor().focus();
  await page.keyboard.press("Control+a");
  await page.keyboard.insertText(text);
}

async function edited(change: (text: string) => string): Promise<void> {
  // The editor draws the lines that are seen, and copies all.
  await editor().focus();
  await page.keyboard.press("Control+a");
  await page.keyboard.press("Control+c");
  await type(change(await page.evaluate(() => navigator.clipboard.readText())));
}

step("bucket", "a locked console asks before it changes anything", async () => {
  await page.getByRole("tab", { name: "Text" }).click();
  await button("Edit").click();
  await editor().waitFor();
  await edited((text) => text.replace('"opened": 78', '"opened": 80'));
  await button("Review and save …").click();
  await dialog().getByText('"opened": 80').waitFor();
  assert.equal(await dialog().locator(".removed").count(), 1);
  await picture(page, "bucket-diff-light");
  await dialog().getByRole("button", { name: "Save" }).click();
  await page.getByRole("heading", { name: "Unlock the console?" }).waitFor();
  await checkAccessibility(page);
  await button("Cancel").click();
  assert.equal((await daemon.bucket("phone-1", "login")).opened, 78);
});

step("bucket", "an edit is saved, secrets stay, whole numbers are exact", async () => {
  await edited((text) => text.replace(/\}$/, ',\n"exact": 9007199254740993\n}'));
  await button("Review and save …").click();
  await dialog().getByRole("button", { name: "Save" }).click();
  await button("Unlock and go on").click();
  await page.getByText("Saved").waitFor();
  await button("Unlocked").waitFor();
  const raw = spawnSync("curl", ["-s", "--unix-socket", daemon.socket, `http://b${FIRST}`], { encoding: "utf8" });
  assert.match(raw.stdout, /"exact":9007199254740993/);
  assert.match(raw.stdout, /"opened":80/);
  assert.match(raw.stdout, /"sessionToken":"t0k3n-1"/);
});

step("bucket", "the editor completes keys and values of the schema", async () => {
  await button("Edit").click();
  await type("{\n  \n}");
  await page.keyboard.press("ArrowUp");
  await page.keyboard.press("Control+Space");
  const list = page.locator(".editor .cm-tooltip-autocomplete");
  await list.getByText("loggedIn").waitFor();
  assert.match((await list.textContent()) ?? "", /loggedInboolean, required/);
  await picture(page, "completion-light");
  await page.keyboard.type('"mo');
  await list.getByText("mode").waitFor();
  await page.waitForTimeout(150);
  await page.keyboard.press("Enter");
  await page.keyboard.press("Control+Space");
  await list.getByText('"careful"').waitFor();
  await page.waitForTimeout(150);
  await page.keyboard.press("Enter");
  await until("the value is there", async () => /"mode": "(fast|careful)"/.test((await editor().textContent()) ?? ""));
});

step("bucket", "what violates the schema is underlined, in the daemon's words", async () => {
  await type('{\n  "loggedIn": "yes",\n  "opened": -1,\n  "sessionToken": {"$masked": true}\n}');
  const list = page.getByRole("list", { name: "Schema violations" });
  await list.getByText("must be true or false, got a string").waitFor();
  assert.equal(await list.locator("li").count(), 2);
  assert.equal(await page.locator(".editor .cm-lintRange-error").count(), 2);
  await picture(page, "violations-light");
  await type('{"loggedIn": tru');
  await until("the broken text is underlined", async () => (await page.locator(".editor .cm-lintRange-error").count()) > 0);
  await button("Discard").click();
});

step("bucket", "nothing that others wrote meanwhile is overwritten", async () => {
  await button("Edit").click();
  await edited((text) => text.replace('"user-1"', '"ada"'));
  await daemon.must("PATCH", FIRST, { opened: 81 });
  await page.getByText(/The bucket has changed since you began/).waitFor();
  await button("Review and save …").click();
  await dialog().getByRole("button", { name: "Save" }).click();
  await page.locator(".notice.refused").waitFor();
  assert.equal((await daemon.bucket("phone-1", "login")).user, "user-1");
  await button("Close").click();
  await button(/Put my changes upon revision/).click();
  await button("Review and save …").click();
  await dialog().getByText('"ada"').waitFor();
  await dialog().getByRole("button", { name: "Save" }).click();
  await page.getByText("Saved").waitFor();
  const { user, opened, sessionToken } = await daemon.bucket("phone-1", "login");
  assert.deepEqual([user, opened, sessionToken], ["ada", 81, "t0k3n-1"]);
});

step("bucket", "a refused save says why, and marks the place", async () => {
  await button("Edit").click();
  await edited((text) => text.replace('"loggedIn": true', '"loggedIn": 1'));
  await button("Review and save …").click();
  await dialog().getByRole("button", { name: "Save" }).click();
  await page.locator(".notice.refused").getByText(/must be true or false/).first().waitFor();
  await button("Discard").click();
  await button("Close").click();
});

step("bucket", "the history is a slider, and a change is taken back", async () => {
  await page.getByRole("tab", { name: "History" }).click();
  const slider = page.getByRole("slider");
  await slider.waitFor();
  const rows = page.getByRole("list", { name: "Changes, newest first" }).locator("li");
  await until("the changes are listed", async () => (await rows.count()) >= 5);
  assert.match((await rows.first().textContent()) ?? "", /set user/);
  await slider.focus();
  await page.keyboard.press("ArrowLeft");
  await page.getByText(/set opened/).first().waitFor();
  await page.getByRole("heading", { name: "As it was" }).waitFor();
  await page.getByRole("region", { name: "Difference" }).getByText('"ada"').waitFor();
  assert.ok(!(await page.content()).includes("t0k3n-1"));
  await picture(page, "history-light");
  await checkAccessibility(page);
  await page.keyboard.press("End");
  await page.getByText(/set user/).first().waitFor();
  await button("Undo this change").click();
  await page.getByText(/is taken back/).waitFor();
  const { user, opened } = await daemon.bucket("phone-1", "login");
  assert.deepEqual([user, opened], ["user-1", 81]);
  await until("the undo is in the history", async () => /taking back/.test((await rows.first().textContent()) ?? ""));
});

step("bucket", "a damaged bucket says what the daemon says", async () => {
  await go("#/bucket/phone-3/daily");
  await page.getByRole("alert").getByText(/cannot/).first().waitFor();
});

// --- inputs

const field = (label: string): Locator => page.getByLabel(label, { exact: true });

step("inputs", "a schema is a table of fields, and JSON Schema beside it", async () => {
  await go("#/inputs/login");
  await field("Name of account").waitFor();
  assert.equal(await page.getByLabel("loggedIn is required", { exact: true }).isChecked(), true);
  assert.equal(await field("Name of password").inputValue(), "password");
  assert.equal(await field("max. items of proxies, as JSON").inputValue(), "5");
  await page.locator(".editor .cm-line", { hasText: "writeOnly" }).first().waitFor();
  await page.getByText("1 stored bucket would violate this schema.").waitFor();
  await picture(page, "inputs-light");
  await checkAccessibility(page);
});

step("inputs", "what stored buckets would violate is told before anything is saved", async () => {
  await field("Type of user").selectOption("number");
  await page.getByText(/stored buckets would violate/).waitFor();
  await page.getByText(/\/user must be a number, got a string/).first().waitFor();
  await button("Save").click();
  await page.getByRole("heading", { name: "Stored buckets violate this schema" }).waitFor();
  await dialog().getByRole("button", { name: "Cancel" }).click();
  await field("Type of user").selectOption("string");
  await page.getByText("1 stored bucket would violate this schema.").waitFor();
});

step("inputs", "fields are added, nested and listed; the JSON Schema follows", async () => {
  await button("Add a field").click();
  await field("Name of field8").fill("devices");
  await field("Name of field8").press("Tab");
  await field("Type of devices").selectOption("array");
  await button("Describe the items of devices").click();
  await field("Type of items").nth(1).selectOption("object");
  await button("Add a field to items").click();
  await field("Name of field1").fill("serial");
  await field("Name of field1").press("Tab");
  await page.locator(".editor .cm-line", { hasText: '"serial"' }).waitFor();
  await field("Default of opened, as JSON").fill("3");
  await field("Default of opened, as JSON").press("Tab");
  await page.locator(".editor .cm-line", { hasText: '"default": 3' }).waitFor();
});

step("inputs", "the table follows the JSON Schema that is typed", async () => {
  await edited((text) => text.replace('"maxItems": 5', '"maxItems": 4'));
  await until("the table has it", async () => (await field("max. items of proxies, as JSON").inputValue()) === "4");
  await edited((text) => text.replace('"type": "boolean"', '"type": ["boolean", "null"]'));
  await page.getByText(/A table cannot show this schema: loggedIn has several types/).waitFor();
  await edited((text) => text.replace(/\[\s*"boolean",\s*"null"\s*\]/, '"boolean"'));
  await field("Name of account").waitFor();
});

step("inputs", "the types are generated to be copied", async () => {
  await page.locator(".code", { hasText: "serial" }).waitFor();
  await page.getByLabel("Language").selectOption("python");
  await page.locator(".code", { hasText: "TypedDict" }).waitFor();
  await button("Copy the types").click();
  await page.getByText("The types for Python copied").waitFor();
  const types = await page.evaluate(() => navigator.clipboard.readText());
  const folder = join(daemon.home, "types");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "login_bucket.py"), types);
  const ran = spawnSync(join(REPO, ".venv/bin/python"), ["-c", "import login_bucket"], { cwd: folder, encoding: "utf8" });
  assert.equal(ran.status, 0, ran.stderr);
});

step("inputs", "a schema is saved in the form it had, and another one begun and removed", async () => {
  await button("Save").click();
  await page.getByRole("heading", { name: "Stored buckets violate this schema" }).waitFor();
  await button("Save, and let what they violate now stand").click();
  await page.getByText("The schema of login is set").waitFor();
  const saved = await daemon.must("GET", "/v1/schemas/login");
  assert.equal(saved.form, "fields");
  assert.equal(saved.existing, "tolerate");
  const names = (saved.schema as typeof SCHEMA).fields.map(({ name }) => name);
  assert.deepEqual(names, [...SCHEMA.fields.map(({ name }) => name), "devices"]);
  await page.getByLabel("New", { exact: true }).fill("follow");
  await button("Begin").click();
  await button("Add a field").click();
  await page.getByText("No stored bucket violates this schema.").waitFor();
  await button("Save").click();
  await page.getByText("The schema of follow is set").waitFor();
  await button("Remove").click();
  await dialog().getByRole("button", { name: "Remove" }).click();
  await page.getByText("The schema of follow is removed").waitFor();
  assert.equal((await daemon.call("GET", "/v1/schemas/follow")).status, 404);
  await until("another schema is shown", () => page.url().endsWith("#/inputs"));
});

// --- overview

/** Open the overview, and wait until nothing moves any more that is to be clicked. */
async function openOverview(): Promise<void> {
  await go("#/overview");
  await page.locator(".findings").first().waitFor();
  await until("all parts are there", async () => (await page.locator(".loading").count()) === 0);
}

step("overview", "charts, disk, and problems with their cures", async () => {
  await go("#/overview");
  await page.locator(".chart canvas").nth(3).waitFor();
  await page.locator(".facts-list", { hasText: /Disk.*left/ }).first().waitFor();
  await page.locator(".findings .problem", { hasText: "phone-3" }).locator(".fix").waitFor();
  await until("the figures are there", async () => /[1-9]/.test((await page.locator(".chart b").first().textContent()) ?? ""));
  await picture(page, "overview-light");
  await checkAccessibility(page);
});

step("overview", "a context is revoked", async () => {
  const made = await daemon.must("POST", "/v1/contexts", { device: "phone-7", job: "login", label: "night-run" });
  await button("Revoke night-run").click();
  await dialog().getByRole("button", { name: "Revoke" }).click();
  await page.getByText("The context is revoked").waitFor();
  const token = { Authorization: `Bearer ${String(made.token)}` };
  assert.equal((await daemon.call("GET", "/v1/bucket", undefined, token)).status, 401);
});

step("overview", "a hold is broken", async () => {
  await button(/^Break the hold of/).click();
  await dialog().getByRole("button", { name: "Break the hold" }).click();
  await page.getByText("Nobody holds anything.").waitFor();
  assert.deepEqual((await daemon.must("GET", "/v1/holds")).holds, []);
});

step("overview", "a deleted bucket comes back out of the trash", async () => {
  const before = await daemon.bucket("phone-8", "login");
  await go("#/bucket/phone-8/login");
  await button("Delete").click();
  await checkAccessibility(page);
  await dialog().getByRole("button", { name: "Delete" }).click();
  await page.getByText("The bucket is deleted").waitFor();
  assert.deepEqual(await daemon.bucket("phone-8", "login"), {});
  await openOverview();
  await button("Restore phone-8").click();
  await page.getByText("The bucket of phone-8, login is back").waitFor();
  assert.deepEqual(await daemon.bucket("phone-8", "login"), before);
  await go("#/bucket/phone-9/login");
  await button("Delete").click();
  await dialog().getByRole("button", { name: "Delete" }).click();
  await page.getByText("The bucket is deleted").waitFor();
  await openOverview();
  await button("Delete for good phone-9").click();
  await dialog().getByRole("button", { name: "Delete for good" }).click();
  await button("Delete for good phone-9").waitFor({ state: "detached" });
  const { trash } = await daemon.must("GET", "/v1/trash");
  assert.deepEqual((trash as { device: string }[]).map(({ device }) => device), ["phone-99"]);
});

// --- the whole

step("page", "it says when the daemon is away, and goes on when it is back", async () => {
  await go("#/");
  await page.getByRole("grid").waitFor();
  await daemon.stop();
  await page.locator(".away").waitFor();
  await until("it is told in words", async () => /bucketd|daemon/.test((await page.locator(".away").textContent()) ?? ""));
  await daemon.start();
  await page.locator(".away").waitFor({ state: "detached" });
  await daemon.must("PATCH", "/v1/devices/phone-1/jobs/browse/bucket", { opened: 500 });
  await until("the change is shown", async () => ((await cell("phone-1", "browse").textContent()) ?? "").includes("now"));
});

step("page", "the lock is one click, and the keys are listed", async () => {
  await button("Unlocked").click();
  await button("Locked").waitFor();
  await page.locator("h1").first().waitFor();
  await page.evaluate(() => (document.activeElement as HTMLElement).blur());
  await page.keyboard.press("?");
  await dialog().getByText("open the bucket of the cell").waitFor();
  await checkAccessibility(page);
  await page.keyboard.press("Escape");
  for (const [keys, title] of [["gi", "Inputs"], ["go", "Overview"]] as const) {
    for (const key of keys) await page.keyboard.press(key);
    await page.getByRole("heading", { name: title, exact: true }).waitFor();
  }
  for (const key of "gd") await page.keyboard.press(key);
  await page.getByRole("grid").waitFor();
});

step("page", "axe-core finds nothing, light and dark, on any page", async () => {
  for (const [fragment, ready] of [
    ["#/", ".cell"],
    ["#/bucket/phone-1/login", ".tree"],
    ["#/inputs/login", ".editor .cm-line"],
    ["#/overview", ".findings"],
  ] as const) {
    await go(fragment);
    await page.locator(ready).first().waitFor();
    await page.waitForTimeout(1100);
    await checkAccessibility(page);
    await page.emulateMedia({ colorScheme: "dark" });
    await picture(page, `${fragment.split("/")[1] || "devices"}-dark`);
    await page.emulateMedia({ colorScheme: "light" });
    if (fragment.includes("bucket")) {
      await page.getByRole("tab", { name: "Text" }).click();
      await page.locator(".editor .cm-line").first().waitFor();
      await checkAccessibility(page);
    }
  }
});

step("page", "from 320 pixels to 4K nothing is cut off", async () => {
  for (const [width, height] of [[320, 640], [768, 1024], [1920, 1080], [3840, 2160]] as const) {
    await page.setViewportSize({ width, height });
    for (const fragment of ["#/", "#/bucket/phone-1/login", "#/inputs/login", "#/overview"]) {
      await go(fragment);
      await page.locator("main h1").first().waitFor();
      await page.waitForTimeout(250);
      const wider = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      const content = await page.evaluate(() => {
        const box = document.getElementById("content") as HTMLElement;
        return box.scrollWidth - box.clientWidth;
      });
      const widest = await page.evaluate(() =>
        [...document.querySelectorAll("#content *")]
          .filter((e) => e.getBoundingClientRect().right > window.innerWidth + 1 && !e.closest(".table-box, .grid, .code, .tree, .editor"))
          .map((e) => `${e.tagName}.${e.className}`)
          .slice(0, 4),
      );
      const excess = Math.max(wider, content);
      assert.ok(excess <= 0, `${fragment} is ${excess} px too wide at ${width}: ${widest.join()}`);
      if (width === 320 && fragment === "#/") await picture(page, "devices-small");
    }
  }
  await page.setViewportSize({ width: 1200, height: 760 });
  await context.close();
});
