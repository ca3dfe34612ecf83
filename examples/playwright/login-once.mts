// Log in to a web page once; go on with its cookies and local storage in every later iteration.
//
//   bucketctl run --device browser-1 --job login --label checkout-test -- node login-once.mts
//
// It needs the packages bucketd-client and playwright, and Node 22.18 or newer (or a compiler).
// The page and the account come from the environment: PAGE, APP_USER and APP_PASSWORD; and BROWSER, the
// path of a browser in the place of Playwright's own, such as /usr/bin/chromium. The label, such as the
// name of the test, says which run it is; without --label it is the time and the program.

import { chromium, type BrowserContextOptions, type Page } from "playwright";
import { Bucket } from "bucketd-client";

interface Session {
  /** Cookies and local storage, as Playwright hands them out. */
  storageState?: Exclude<BrowserContextOptions["storageState"], string>;
  visits?: number;
}

const { PAGE = "http://localhost:8080", APP_USER = "", APP_PASSWORD = "" } = process.env;

async function logIn(page: Page): Promise<void> {
  await page.getByLabel("User").fill(APP_USER);
  await page.getByLabel("Password").fill(APP_PASSWORD);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByText("Welcome").waitFor();
}

const bucket = new Bucket<Session>(); // that of BUCKETD_TOKEN, set by bucketctl run
const { storageState, visits = 0 } = await bucket.get();
const browser = await chromium.launch({ executablePath: process.env.BROWSER });
try {
  const context = await browser.newContext(storageState ? { storageState } : {});
  const page = await context.newPage();
  await page.goto(PAGE);
  if (await page.getByText("Welcome").isVisible()) {
    console.log("going on with the stored session");
  } else {
    console.log(`logging in as ${APP_USER}`);
    await logIn(page);
  }
  // Each time, because a page may renew its cookies.
  await bucket.set({ storageState: await context.storageState(), visits: visits + 1 });
  console.log(`visit ${visits + 1}`);
} finally {
  await browser.close();
}
