/** The entry: open the session with the ticket of the link, then show the pages. */

import { render, type JSX } from "preact";
import { useEffect } from "preact/hooks";
import { consoleState, daemonAway, openSession, pageEnded, Refused, setLocked } from "./api.js";
import { BucketPage } from "./bucket.js";
import { GridPage } from "./grid.js";
import { InputsPage } from "./inputs.js";
import { listen } from "./live.js";
import { followMetrics, OverviewPage } from "./overview.js";
import { followAddress, fragmentOf, route, type Route } from "./router.js";
import { complain, Dialog, Notice, Questions } from "./ui.js";
import { signal } from "@preact/signals";

const PAGES: [Route, string][] = [
  [{ page: "grid" }, "Devices"],
  [{ page: "inputs", automation: null }, "Inputs"],
  [{ page: "overview" }, "Overview"],
];
const showsKeys = signal(false);
const KEYS: [string, string][] = [
  ["/", "filter devices and jobs"],
  ["g d", "devices"],
  ["g i", "inputs"],
  ["g o", "overview"],
  ["arrows, Home, End, PageUp, PageDown", "move in the grid"],
  ["Enter", "open the bucket of the cell"],
  ["Escape", "back to the grid; close a dialog"],
  ["Ctrl+Space", "complete in the editor"],
  ["Escape, then Tab", "leave the editor"],
  ["?", "these keys"],
];

function App(): JSX.Element {
  useEffect(() => {
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, []);
  if (pageEnded.value !== null) return <Ended message={pageEnded.value} />;
  return (
    <>
      <a class="skip" href="#content" onClick={skip}>
        Skip to the content
      </a>
      <Header />
      {daemonAway.value && (
        <p class="away" role="alert">
          {daemonAway.value}
        </p>
      )}
      <div id="content" tabIndex={-1}>
        <Page />
      </div>
      <Notice />
      <Questions />
      {showsKeys.value && (
        <Dialog title="Keys" onClose={() => (showsKeys.value = false)}>
          <dl class="keys">
            {KEYS.map(([key, does]) => (
              <div key={key}>
                <dt>{key}</dt>
                <dd>{does}</dd>
              </div>
            ))}
          </dl>
          <div class="actions">
            <button type="button" onClick={() => (showsKeys.value = false)}>
              Close
            </button>
          </div>
        </Dialog>
      )}
    </>
  );
}

function skip(event: MouseEvent): void {
  event.preventDefault();
  document.getElementById("content")?.focus();
}

function Page(): JSX.Element {
  const shown = route.value;
  switch (shown.page) {
    case "bucket":
      return <BucketPage key={fragmentOf(shown)} name={shown.name} />;
    case "inputs":
      return <InputsPage automation={shown.automation} />;
    case "overview":
      return <OverviewPage />;
    default:
      return <GridPage />;
  }
}

function Header(): JSX.Element {
  const state = consoleState.value;
  const here = route.value.page === "bucket" ? "grid" : route.value.page;
  return (
    <header class="top">
      <b class="brand">bucketd</b>
      <nav aria-label="Pages">
        {PAGES.map(([to, title]) => (
          <a
            key={to.page}
            href={fragmentOf(to)}
            aria-current={here === to.page ? "page" : undefined}
          >
            {title}
          </a>
        ))}
      </nav>
      <span class="where">{state && `${state.user}@${state.host}`}</span>
      <button type="button" class="quiet" aria-label="Keys" onClick={() => (showsKeys.value = true)}>
        ?
      </button>
      <Lock />
    </header>
  );
}

function Lock(): JSX.Element | null {
  const state = consoleState.value;
  if (state === null) return null;
  if (state.read_only) return <span class="lock">Read-only</span>;
  const locked = state.unlocked_seconds <= 0;
  return (
    <button
      type="button"
      class={locked ? "lock" : "lock open"}
      aria-pressed={!locked}
      title={locked ? "Nothing can be changed. Unlock to change." : "Changes are allowed. Lock again."}
      onClick={() => void setLocked(!locked).catch(complain)}
    >
      {locked ? "Locked" : "Unlocked"}
    </button>
  );
}

function Ended({ message }: { message: string }): JSX.Element {
  return (
    <main class="ended">
      <h1>This page has ended</h1>
      <p role="alert">{message}</p>
    </main>
  );
}

let isGoing = false;

function onKey(event: KeyboardEvent): void {
  const target = event.composedPath()[0];
  const isTyping =
    target instanceof HTMLElement &&
    (target.isContentEditable || /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName));
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape" && !event.defaultPrevented && !isTyping) {
    if (route.value.page === "bucket") window.location.hash = "#/";
    return;
  }
  if (isTyping) return;
  if (isGoing) {
    isGoing = false;
    const to = { d: "#/", i: "#/inputs", o: "#/overview" }[event.key];
    if (to !== undefined) window.location.hash = to;
  } else if (event.key === "g") {
    isGoing = true;
    window.setTimeout(() => (isGoing = false), 1500);
  } else if (event.key === "?") {
    showsKeys.value = true;
  } else if (event.key === "/") {
    event.preventDefault();
    const focus = (): void => document.getElementById("filter")?.focus();
    if (route.value.page === "grid") return focus();
    window.location.hash = "#/";
    requestAnimationFrame(() => requestAnimationFrame(focus));
  }
}

/** Take the ticket out of the address, so that neither history nor a screenshot shows it. */
function takeTicket(): string | null {
  const found = /^#ticket=([\w-]+)$/.exec(window.location.hash);
  if (found === null) return null;
  window.history.replaceState(null, "", "/#/");
  return found[1] as string;
}

async function begin(): Promise<void> {
  const root = document.getElementById("app") as HTMLElement;
  const ticket = takeTicket();
  followAddress();
  try {
    if (ticket === null) {
      pageEnded.value =
        "It was opened without its one-time link, or was loaded again. Press Enter in the terminal " +
        "of bucketctl console to open a new page.";
    } else {
      await openSession(ticket);
      listen();
      followMetrics();
    }
  } catch (problem) {
    pageEnded.value =
      problem instanceof Refused
        ? `${problem.message}. Press Enter in the terminal of bucketctl console to open a new page.`
        : String(problem);
  }
  root.replaceChildren();
  render(<App />, root);
}

void begin();
