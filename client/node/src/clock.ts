import { performance } from "node:perf_hooks";
import * as timers from "node:timers";

// Fake timers of a test replace these functions, and a call in progress would wait for ever. The
// client therefore keeps the ones that it finds at its import.
export const { setTimeout, clearTimeout, setInterval, clearInterval, setImmediate } = timers;

/** Return monotonic milliseconds, which setting the system's clock does not change. */
export const now: () => number = performance.now.bind(performance);

/** Resolve after `ms`. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
