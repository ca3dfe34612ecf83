// Many workers, one account: one of them logs in, the others take over its cookies and local storage.
//
//   for n in 1 2 3; do bucketctl run --device shop --job ada -- node shared-login.mts & done; wait
//
// It needs the packages bucketd-client and playwright, and Node 22.18 or newer (or a compiler).
// The page and the account come from the environment: PAGE, APP_USER and APP_PASSWORD; and BROWSER, the
// path of a browser in the place of Playwright's own, such as /usr/bin/chromium.

import { chromium, type Browser, type BrowserContextOptions, type Page } from "playwright";
import { Bucket } from "bucketd-client";

interface Session {
  /** Cookies and local storage, as Playwright hands them out. */
  storageState?: Exclude<BrowserContextOptions["storageState"], string>;
}

const { PAGE = "http://localhost:8080", APP_USER = "", APP_PASSWORD = "" } = process.env;

/** Open the page with the cookies and the local storage of a session. */
async function open(browser: Browser, { storageState }: Session): Promise<Page> {
  const context = await browser.newContext(storageState ? { storageState } : {});
  const page = await context.newPage();
  await page.goto(PAGE);
  return page;
}

/** Ask the page itself: nobody else knows whether it still accepts the session. */
async function isLoggedIn(browser: Browser, session: Session): Promise<boolean> {
  const page = await open(browser, session);
  try {
    return await page.getByText("Welcome").isVisible();
  } finally {
    await page.context().close();
  }
}

/** Log in, and return what the other workers need. */
async function logIn(browser: Browser): Promise<Session> {
  console.log(`logging in as ${APP_USER}`);
  const page = await open(browser, {});
  await page.getByLabel("User").fill(APP_USER);
  await page.getByLabel("Password").fill(APP_PASSWORD);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByText("Welcome").waitFor();
  const storageState = await page.context().storageState();
  await page.context().close();
  return { storageState };
}

const bucket = new Bucket<Session>(); // that of BUCKETD_TOKEN, set by bucketctl run
const browser = await chromium.launch({ executablePath: process.env.BROWSER });
try {
  const session = await bucket.refresh(
    (stored) => isLoggedIn(browser, stored),
    () => logIn(browser),
  );
  const page = await open(browser, session);
  await page.getByText("Welcome").waitFor();
  console.log("working as everybody else");
} finally {
  await browser.close();
}
