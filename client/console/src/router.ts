/** Which page is shown, by the fragment of the address. */

import { signal } from "@preact/signals";
import type { BucketName } from "./snippets.js";

export type Route =
  | { page: "grid" }
  | { page: "bucket"; name: BucketName }
  | { page: "inputs"; automation: string | null }
  | { page: "overview" };

export const route = signal<Route>({ page: "grid" });

/** Return the route of a fragment such as "#/bucket/phone-1/login"; the grid for any other. */
export function parseRoute(fragment: string): Route {
  const parts = fragment.replace(/^#\/?/, "").split("/");
  try {
    const [page, ...rest] = parts.map(decodeURIComponent);
    if (page === "bucket" && rest[0]) {
      return { page, name: { device: rest[0], job: rest[1] ?? null } };
    }
    if (page === "inputs") return { page, automation: rest[0] || null };
    if (page === "overview") return { page };
  } catch {
    // A fragment that is not well-formed names no page.
  }
  return { page: "grid" };
}

export function fragmentOf(route: Route): string {
  if (route.page === "bucket") {
    const { device, job } = route.name;
    return `#/bucket/${[device, ...(job === null ? [] : [job])].map(encodeURIComponent).join("/")}`;
  }
  if (route.page === "inputs" && route.automation !== null) {
    return `#/inputs/${encodeURIComponent(route.automation)}`;
  }
  return route.page === "grid" ? "#/" : `#/${route.page}`;
}

export function go(to: Route): void {
  window.location.hash = fragmentOf(to);
}

export function followAddress(): void {
  const take = (): void => {
    route.value = parseRoute(window.location.hash);
  };
  window.addEventListener("hashchange", take);
  take();
}
