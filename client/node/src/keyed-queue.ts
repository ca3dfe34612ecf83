const tails = new Map<string, Promise<unknown>>();

/**
 * Run `work` after all earlier work with the same key, or at `deadline` (milliseconds since the
 * epoch), whichever comes first. So calls on one bucket are made in order, awaited or not.
 */
export function enqueue<T>(key: string, deadline: number, work: () => Promise<T>): Promise<T> {
  const before = tails.get(key);
  if (!before) return enter(key, work(), undefined);
  return enter(key, until(before, deadline).then(work), before);
}

function enter<T>(key: string, done: Promise<T>, before: Promise<unknown> | undefined): Promise<T> {
  const last = Promise.allSettled([before, done]).then(() => {
    if (tails.get(key) === last) tails.delete(key);
  });
  tails.set(key, last);
  return done;
}

async function until(before: Promise<unknown>, deadline: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise((resolve) => {
    timer = setTimeout(resolve, Math.max(0, deadline - Date.now()));
  });
  await Promise.race([before, over]);
  clearTimeout(timer);
}
