const lanes = new Map<string, Promise<unknown>>();

/**
 * Run `work` after all that was put into the same lane before, or at the time `by`
 * (milliseconds since the epoch), whichever comes first. So calls on one bucket leave in the
 * order in which they were made, awaited or not.
 */
export function inTurn<T>(lane: string, by: number, work: () => Promise<T>): Promise<T> {
  const before = lanes.get(lane);
  if (!before) return enter(lane, work(), undefined);
  return enter(lane, until(before, by).then(work), before);
}

function enter<T>(lane: string, done: Promise<T>, before: Promise<unknown> | undefined): Promise<T> {
  const last = Promise.allSettled([before, done]).then(() => {
    if (lanes.get(lane) === last) lanes.delete(lane);
  });
  lanes.set(lane, last);
  return done;
}

async function until(before: Promise<unknown>, by: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise((resolve) => {
    timer = setTimeout(resolve, Math.max(0, by - Date.now()));
  });
  await Promise.race([before, over]);
  clearTimeout(timer);
}
