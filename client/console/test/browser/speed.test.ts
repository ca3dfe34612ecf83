/** How fast the console is: first paint, and frames while thousands of cells change. */

import assert from "node:assert/strict";
import { after, before } from "node:test";
import type { Browser } from "playwright-core";
import { Console, Daemon, FULL, launch, openPage, skip, step, until, writeSteps } from "./support.js";

const DEVICES = FULL ? 500 : 100;
const JOBS = 10;
const CHANGES_A_SECOND = 200;
const SECONDS = FULL ? 10 : 3;
const MIN_FRAMES = 30;
const FIRST_PAINT_MS = 500;

let daemon: Daemon;
let console_: Console;
let browser: Browser;

const path = (device: number, job: number): string =>
  `/v1/devices/phone-${device}/jobs/job-${job}/bucket`;

before(async () => {
  if (skip) return;
  daemon = await new Daemon().start();
  for (let device = 0; device < DEVICES; device += 10) {
    const some = Array.from({ length: 10 * JOBS }, (_, at) =>
      daemon.must("PUT", path(device + Math.floor(at / JOBS), at % JOBS), { n: 0, user: `user-${device}` }),
    );
    await Promise.all(some);
  }
  console_ = await Console.start(daemon);
  browser = await launch();
});

after(async () => {
  if (skip) return;
  await browser.close();
  await console_.stop();
  await daemon.remove();
  writeSteps("speed");
});

interface Measured {
  frames: number;
  seconds: number;
  longest: number;
}

/** Count frames in the page for some seconds; what it says is JavaScript that runs there. */
const COUNT = `(seconds) => new Promise((resolve) => {
  const began = performance.now();
  let [frames, last, longest] = [0, began, 0];
  const frame = (now) => {
    frames++;
    longest = Math.max(longest, now - last);
    last = now;
    if (now - began < seconds * 1000) requestAnimationFrame(frame);
    else resolve({ frames, seconds: (now - began) / 1000, longest });
  };
  requestAnimationFrame(frame);
})`;

/** Change buckets at a steady pace until the returned function is called, which returns how many. */
function change(pace: number): () => Promise<number> {
  let sent = 0;
  let running = 0;
  const began = performance.now();
  const timer = setInterval(() => {
    const due = Math.floor(((performance.now() - began) / 1000) * pace);
    for (; sent < due && running < 64; sent++) {
      running++;
      const target = path((sent * 37) % DEVICES, (sent * 7) % JOBS);
      void daemon.must("PATCH", target, { n: sent }, { Prefer: "return=minimal" }).finally(() => running--);
    }
  }, 10);
  return async () => {
    clearInterval(timer);
    await until("the changes are made", () => running === 0);
    return sent;
  };
}

step("speed", `first paint below ${FIRST_PAINT_MS} ms`, async () => {
  const { page, context } = await openPage(browser, console_.link);
  await page.getByRole("grid").waitFor();
  const painted = await page.evaluate(
    () => performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? Infinity,
  );
  await context.close();
  await console_.stop();
  console_ = await Console.start(daemon);
  assert.ok(Number.isFinite(painted), "nothing was painted");
  // Only the long form holds to a figure: beside other tests it says nothing about the page.
  if (FULL) assert.ok(painted < FIRST_PAINT_MS, `${painted} ms`);
  return `first contentful paint after ${Math.round(painted)} ms`;
});

step("speed", `${DEVICES * JOBS} cells at ${CHANGES_A_SECOND} changes a second`, async () => {
  const { page, context, problems } = await openPage(browser, console_.link, { width: 1600, height: 900 });
  await page.getByText(`${DEVICES} devices`).waitFor();
  await page.waitForTimeout(500);
  const drawn = await page.locator(".cell").count();
  assert.ok(drawn < 400, `${drawn} cells are drawn`);
  const stop = change(CHANGES_A_SECOND);
  const still = (await page.evaluate(`(${COUNT})(${SECONDS})`)) as Measured;
  // The same while somebody scrolls.
  const scrolling = page.evaluate(`(${COUNT})(${SECONDS})`);
  await page.mouse.move(800, 500);
  for (let at = 0; at < SECONDS * 10; at++) {
    await page.mouse.wheel(0, at % 40 < 20 ? 400 : -400);
    await page.waitForTimeout(80);
  }
  const scrolled = (await scrolling) as Measured;
  const sent = await stop();
  const pace = sent / (still.seconds + scrolled.seconds);
  const told = [still, scrolled].map(({ frames, seconds, longest }) =>
    `${(frames / seconds).toFixed(1)} frames a second, the longest ${Math.round(longest)} ms`,
  );
  for (const { frames, seconds } of [still, scrolled]) {
    assert.ok(frames > 1, told.join("; "));
    if (FULL) assert.ok(frames / seconds >= MIN_FRAMES, told.join("; "));
  }
  if (FULL) assert.ok(pace >= CHANGES_A_SECOND * 0.9, `${pace} changes a second`);
  assert.deepEqual(problems, []);
  await context.close();
  return `${Math.round(pace)} changes a second: ${told[0]}; scrolling: ${told[1]}`;
});
