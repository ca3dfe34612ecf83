/** Metrics in Prometheus' text format, and figures of the time between two readings. */

/** The sum over all labels of each sample, by name. */
export type Sample = Map<string, number>;

export function parseMetrics(text: string): Sample {
  const found: Sample = new Map();
  for (const line of text.split("\n")) {
    const matched = /^([A-Za-z_:][\w:]*)(?:\{[^}]*\})? (\S+)/.exec(line);
    if (!matched) continue;
    const [, name, value] = matched as unknown as [string, string, string];
    found.set(name, (found.get(name) ?? 0) + Number(value));
  }
  return found;
}

export interface Figures {
  at: number;
  requests: number | null;
  commits: number | null;
  syncMilliseconds: number | null;
  watchers: number | null;
}

export const UNKNOWN_FIGURES = {
  requests: null,
  commits: null,
  syncMilliseconds: null,
  watchers: null,
};

/** Return the rates between two readings that are `seconds` apart; null where none is known. */
export function figures(before: Sample, now: Sample, seconds: number, at: number): Figures {
  const growth = (name: string): number | null => {
    const [a, b] = [before.get(name), now.get(name)];
    // A counter that went back is of a daemon that was started anew.
    return a === undefined || b === undefined || b < a ? null : b - a;
  };
  const rate = (name: string): number | null => {
    const grown = growth(name);
    return grown === null || seconds <= 0 ? null : grown / seconds;
  };
  const [time, count] = [growth("bucketd_fsync_seconds_sum"), growth("bucketd_fsync_seconds_count")];
  return {
    at,
    requests: rate("bucketd_requests_total"),
    commits: rate("bucketd_commits_total"),
    syncMilliseconds: time === null || !count ? null : (time / count) * 1000,
    watchers: now.get("bucketd_watchers") ?? null,
  };
}
