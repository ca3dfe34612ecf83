import { clearTimeout, now, setTimeout } from "./clock.js";

/** The work did not start in time, because of earlier work with the same key. */
export class QueueTimeout extends Error {}

/** For each key with work in progress, the callbacks that start the waiting work. */
const queues = new Map<string, Array<() => void>>();

/**
 * Run `work` after all earlier work with the same key, so that calls on one bucket are made in
 * order, awaited or not. Reject with QueueTimeout if it has not started at `deadline`.
 */
export async function enqueue<T>(key: string, deadline: number, work: () => Promise<T>): Promise<T> {
  let queue = queues.get(key);
  if (queue) await waitIn(queue, deadline);
  else queues.set(key, (queue = []));
  try {
    return await work();
  } finally {
    const startNext = queue.shift();
    if (startNext) startNext();
    else queues.delete(key);
  }
}

function waitIn(queue: Array<() => void>, deadline: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const start = () => {
      clearTimeout(timer);
      resolve();
    };
    const expire = () => {
      queue.splice(queue.indexOf(start), 1);
      reject(new QueueTimeout());
    };
    const timer = setTimeout(expire, Math.max(0, deadline - now()));
    queue.push(start);
  });
}
