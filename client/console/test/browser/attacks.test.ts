/** Each way into the console that a browser offers to others, tried by a real one. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before } from "node:test";
import type { Browser, Page } from "playwright-core";
import { Console, Daemon, launch, openPage, skip, step, until, writeSteps } from "./support.js";

const SUITE = "attacks";
const BUCKET = "/v1/devices/phone-1/jobs/login/bucket";
let daemon: Daemon;
let console_: Console;
let browser: Browser;
let attacker: Server;
let attackerPort = 0;

before(async () => {
  if (skip) return;
  daemon = await new Daemon().start();
  await daemon.must("PUT", BUCKET, { secret: "s3cr3t" });
  console_ = await Console.start(daemon);
  browser = await launch();
  attacker = createServer((_, response) => {
    response.setHeader("Content-Type", "text/html");
    response.end("<!doctype html><title>evil</title><p>evil");
  }).listen(0, "127.0.0.1");
  await once(attacker, "listening");
  attackerPort = (attacker.address() as AddressInfo).port;
});

after(async () => {
  if (skip) return;
  attacker.close();
  await browser.close();
  await console_.stop();
  assert.deepEqual(await daemon.bucket("phone-1", "login"), { secret: "s3cr3t" });
  await daemon.remove();
  writeSteps("attacks");
});

/** A page of the attacker, at a name of the attacker or at another port of 127.0.0.1. */
async function evilPage(host: string): Promise<Page> {
  const page = await (await browser.newContext()).newPage();
  await page.goto(`http://${host}:${attackerPort}/`);
  return page;
}

const REFUSED_BY = "console-refused-by";

/** Run something in a page, and return which check of the console refused the request. */
async function refusal(page: Page, act: () => Promise<unknown>): Promise<string> {
  // What the browser withholds from a page of another origin, its own tools see.
  const session = await page.context().newCDPSession(page);
  await session.send("Network.enable");
  const refused = new Promise<string>((resolve) => {
    session.on("Network.responseReceivedExtraInfo", ({ headers }) => {
      const found = Object.entries(headers).find(([name]) => name.toLowerCase() === REFUSED_BY);
      if (found) resolve(found[1] as string);
    });
    page.on("response", (response) => {
      const found = response.headers()[REFUSED_BY];
      if (found) resolve(found);
    });
  });
  void act().catch(() => undefined);
  const check = await refused;
  await session.detach();
  return check;
}

/** Fetch a path of the page's own origin, and return which check refused it. */
function ownRefusal(page: Page): Promise<string | null> {
  return page.evaluate(async ([path, name]) => (await fetch(path as string)).headers.get(name as string), [
    BUCKET,
    REFUSED_BY,
  ]);
}

for (const host of ["rebound.example", "127.0.0.1.evil", "localhost"]) {
  step(SUITE, `DNS rebinding by the name ${host}: Host`, async () => {
    const page = await (await browser.newContext()).newPage();
    const response = await page.goto(`http://${host}:${console_.port}/`);
    assert.deepEqual([response?.status(), response?.headers()[REFUSED_BY]], [403, "host"]);
    // The page is of the console's own origin then, as the browser sees it.
    assert.equal(await ownRefusal(page), "host");
    await page.context().close();
  });
}

for (const [who, host] of [
  ["another site", "evil.example"],
  ["another local port", "127.0.0.1"],
] as const) {
  step(SUITE, `a fetch by ${who}: Sec-Fetch-Site`, async () => {
    const page = await evilPage(host);
    for (const mode of ["cors", "no-cors"] as const) {
      const act = (): Promise<unknown> =>
        page.evaluate(([url, how]) => fetch(url as string, { mode: how as RequestMode }).then((r) => r.text()), [
          console_.origin + BUCKET,
          mode,
        ]);
      assert.equal(await refusal(page, act), "site");
    }
    await page.context().close();
  });

  step(SUITE, `a form sent by ${who}: Sec-Fetch-Site`, async () => {
    const page = await evilPage(host);
    const act = (): Promise<unknown> =>
      page.evaluate((action) => {
        const form = document.createElement("form");
        Object.assign(form, { method: "post", enctype: "text/plain", action });
        form.innerHTML = '<input name=\'{"secret": "\' value=\'"}\'>';
        document.body.append(form);
        form.submit();
      }, console_.origin + BUCKET);
    assert.equal(await refusal(page, act), "site");
    await page.context().close();
  });

  step(SUITE, `a frame in a page of ${who}: Sec-Fetch-Site`, async () => {
    const page = await evilPage(host);
    const act = (): Promise<unknown> =>
      page.evaluate((src) => {
        const frame = document.createElement("iframe");
        frame.src = src;
        document.body.append(frame);
      }, `${console_.origin}/`);
    assert.equal(await refusal(page, act), "site");
    await until("the frame is done", () => page.frames().length === 2);
    const inner = page.frames()[1];
    assert.equal(await inner?.locator("#app").count(), 0);
    await page.context().close();
  });

  step(SUITE, `a script or picture in a page of ${who}: Sec-Fetch-Site`, async () => {
    const page = await evilPage(host);
    for (const [tag, path] of [["script", "/main.js"], ["img", "/icon.svg"]] as const) {
      const act = (): Promise<unknown> =>
        page.evaluate(([name, src]) => {
          const element = document.createElement(name as "img");
          element.src = src as string;
          document.body.append(element);
        }, [tag, console_.origin + path]);
      assert.equal(await refusal(page, act), "site");
    }
    await page.context().close();
  });

  step(SUITE, `a WebSocket of ${who}: refused before it opens`, async () => {
    const page = await evilPage(host);
    const told = page.waitForEvent("console", (message) => message.text().includes("WebSocket"));
    const isOpen = await page.evaluate(
      (url) =>
        new Promise<boolean>((resolve) => {
          const socket = new WebSocket(url);
          socket.onopen = () => resolve(true);
          socket.onerror = () => resolve(false);
        }),
      `ws://127.0.0.1:${console_.port}${BUCKET}`,
    );
    assert.equal(isOpen, false);
    assert.match((await told).text(), /Unexpected response code: 403/);
    await page.context().close();
  });
}

step(SUITE, "a request of a local file, whose origin is null: Sec-Fetch-Site", async () => {
  const page = await (await browser.newContext()).newPage();
  const file = join(daemon.home, "evil.html");
  writeFileSync(file, "<p>evil");
  await page.goto(`file://${file}`);
  const act = (): Promise<unknown> =>
    page.evaluate((url) => fetch(url, { method: "POST", body: "{}", mode: "no-cors" }), `${console_.origin}/console/session`);
  assert.equal(await refusal(page, act), "site");
  await page.context().close();
});

step(SUITE, "the page framed by itself: framing refused", async () => {
  const page = await (await browser.newContext()).newPage();
  await page.goto(console_.origin);
  const blocked = page.waitForEvent("console", (message) => message.text().includes("frame-ancestors"));
  await page.evaluate(() => {
    const frame = document.createElement("iframe");
    frame.src = "/";
    document.body.append(frame);
  });
  await blocked;
  await page.context().close();
});

step(SUITE, "the page without its ticket: no token", async () => {
  const page = await (await browser.newContext()).newPage();
  await page.goto(console_.origin);
  await page.getByRole("heading", { name: "This page has ended" }).waitFor();
  assert.equal(await ownRefusal(page), "token");
  await page.context().close();
});

step(SUITE, "script put into the page: content policy", async () => {
  const page = await (await browser.newContext()).newPage();
  await page.goto(console_.origin);
  const ran = await page.evaluate(async (evil) => {
    const script = document.createElement("script");
    script.textContent = "window.ran = true";
    document.body.append(script);
    const button = document.createElement("button");
    button.setAttribute("onclick", "window.ran = true");
    document.body.append(button);
    button.click();
    const sent = await fetch(evil, { mode: "no-cors" }).then(() => true, () => false);
    return [(window as unknown as { ran?: boolean }).ran ?? false, sent];
  }, `http://evil.example:${attackerPort}/`);
  assert.deepEqual(ran, [false, false]);
  await page.context().close();
});

step(SUITE, "the ticket afterwards: in no address, history, storage or cookie", async () => {
  const own = await Console.start(daemon);
  const ticket = own.link.split("=")[1] as string;
  const { page, context } = await openPage(browser, own.link);
  const sent: string[] = [];
  page.on("request", (request) => sent.push(request.url()));
  await page.getByRole("grid").waitFor();
  const kept = await page.evaluate(() =>
    JSON.stringify([
      location.href,
      // The timing of the first navigation names the link, to scripts of this page alone.
      performance.getEntriesByType("resource").map((entry) => entry.name),
      document.cookie,
      { ...localStorage },
      { ...sessionStorage },
      document.documentElement.outerHTML,
    ]),
  );
  assert.ok(!kept.includes(ticket));
  assert.deepEqual(await context.cookies(), []);
  assert.ok(sent.every((url) => !url.includes("ticket")));
  await page.goto(`http://evil.example:${attackerPort}/`);
  await page.goBack();
  assert.ok(!page.url().includes(ticket));
  await page.getByRole("heading", { name: "This page has ended" }).waitFor();
  await context.close();
  await own.stop();
});

step(SUITE, "a ticket used again: refused, and the page it opened ends", async () => {
  const own = await Console.start(daemon);
  const first = await openPage(browser, own.link);
  await first.page.getByRole("grid").waitFor();
  const second = await openPage(browser, own.link);
  await second.page.getByText("was used before").waitFor();
  await first.page.evaluate(() => (location.hash = "#/overview"));
  await first.page.getByRole("heading", { name: "This page has ended" }).waitFor();
  await Promise.all([first.context.close(), second.context.close()]);
  await own.stop();
});

step(SUITE, "a ticket stolen before: its thief loses the page once the user comes", async () => {
  const own = await Console.start(daemon);
  const ticket = own.link.split("=")[1] as string;
  const stolen = await fetch(`${own.origin}/console/session`, { method: "POST", body: JSON.stringify({ ticket }) });
  const { token } = (await stolen.json()) as { token: string };
  const asThief = (): Promise<Response> =>
    fetch(own.origin + BUCKET, { headers: { Authorization: `Bearer ${token}` } });
  assert.equal((await asThief()).status, 200);
  const { page, context } = await openPage(browser, own.link);
  await page.getByText("was used before").waitFor();
  assert.equal((await asThief()).status, 401);
  await context.close();
  await own.stop();
});

step(SUITE, "a change by a locked page: lock", async () => {
  const own = await Console.start(daemon);
  const { page, context } = await openPage(browser, own.link);
  await page.getByRole("grid").waitFor();
  const refused = page.waitForResponse((response) => response.request().method() === "DELETE");
  await page.evaluate(() => (location.hash = "#/bucket/phone-1/login"));
  await page.getByRole("button", { name: "Delete" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await page.getByRole("heading", { name: "Unlock the console?" }).waitFor();
  await page.getByRole("button", { name: "Cancel" }).click();
  // A page that goes past its own dialog is refused by the console.
  await page.route("**/console/unlock", (route) =>
    route.fulfill({ json: { success: true, unlocked_seconds: 900, socket: "", user: "", host: "", version: "", read_only: false } }),
  );
  await page.getByRole("button", { name: "Locked" }).click();
  await page.getByRole("button", { name: "Delete" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  assert.equal((await refused).headers()[REFUSED_BY], "lock");
  await page.getByText("the console is locked").waitFor();
  await context.close();
  await own.stop();
});

step(SUITE, "an upload to the page's origin by another program without a token: token", async () => {
  const refused = await fetch(console_.origin + BUCKET, { method: "PUT", body: "{}" });
  assert.equal(refused.headers.get(REFUSED_BY), "token");
});
