import { BucketError, ForbiddenError, InvalidRequestError } from "../errors.js";
import type { Headers } from "./head.js";
import type { Preconditions, EntityTags } from "./state.js";

export const JSON_TYPE = "application/json";
export const MERGE_PATCH = "application/merge-patch+json";
export const JSON_PATCH = "application/json-patch+json";
// The most specific range that matches decides.
const RANGES = ["*/*", "application/*", JSON_TYPE];
const PREFERENCE = /^\s*return\s*(?:=\s*"?([\p{L}\p{N}_]*)"?\s*)?(?:;.*)?$/iu;
const TAG = /\s*(?:(W\/)?"([\x21\x23-\x7e\x80-\xff]*)")?\s*(?:,|$)/y;

const MAX_FENCES = 8;
export const FENCE = /^[\x21-\x2b\x2d-\x7e]{1,200}$/;

/** One request as it was received. */
export class Request {
  readonly path: string;
  private readonly search: string;

  constructor(
    readonly method: string,
    target: string,
    readonly headers: Headers,
    /** The refusal when the body is longer than a bucket may be. */
    private readonly body: Uint8Array | BucketError,
  ) {
    const local = target.replace(/^http:\/\/[^/?]*\/?/i, "/");
    const at = local.indexOf("?");
    this.path = at < 0 ? local : local.slice(0, at);
    this.search = at < 0 ? "" : local.slice(at + 1);
  }

  /** Return the parameters; only `key` may be repeated. */
  query(allowed: readonly string[]): Map<string, string[]> {
    const found = new Map<string, string[]>();
    for (const pair of this.search.split("&").filter(Boolean)) {
      const [name, ...rest] = pair.replaceAll("+", " ").split("=");
      this.parameter(found, decode(name!, "the query"), decode(rest.join("="), "the query"), allowed);
    }
    return found;
  }

  private parameter(found: Map<string, string[]>, name: string, value: string, allowed: readonly string[]): void {
    if (!allowed.includes(name)) {
      const known = [...allowed].sort().join(", ") || "none";
      throw new InvalidRequestError(`cannot use the parameter '${name.slice(0, 40)}': this route has ${known}`);
    }
    if (found.has(name) && name !== "key") {
      throw new InvalidRequestError(`cannot use the parameter '${name}' twice`);
    }
    found.set(name, [...(found.get(name) ?? []), value]);
  }

  /** The bearer token; "" when Authorization holds something else, undefined without the header. */
  get token(): string | undefined {
    const values = this.headers.get("authorization") ?? [];
    if (values.length > 1) {
      throw new InvalidRequestError("cannot tell who asks: there are several Authorization headers");
    }
    const value = values[0];
    if (value === undefined) return undefined;
    return /^bearer (.*)$/i.exec(value)?.[1]?.trim() ?? "";
  }

  mediaType(allowed: readonly string[]): string {
    const [kind, ...more] = this.one("content-type", JSON_TYPE).split(";").map((part) => part.trim().toLowerCase());
    const charsets = more.filter((part) => part.startsWith("charset=")).map((part) => part.slice(8).replace(/^"+|"+$/g, ""));
    const encoded = this.one("content-encoding", "identity").toLowerCase() !== "identity";
    if (allowed.includes(kind!) && !encoded && charsets.every((each) => each === "utf-8" || each === "utf8")) return kind!;
    throw new BucketError(
      `cannot read the request body: send it as ${allowed.join(" or ")}, in UTF-8 and not compressed`,
      "unsupported_media_type",
    );
  }

  refuseBrowsers(): void {
    if (this.headers.has("origin") || this.headers.has("referer")) {
      throw new ForbiddenError(
        "cannot answer a browser: a request with Origin or Referer is refused, " +
          "so that no web page can reach buckets through a proxy of this socket",
        "forbidden",
      );
    }
  }

  acceptJson(): void {
    const accept = (this.headers.get("accept") ?? []).join(",");
    if (accept.trim() === "" || acceptsJson(accept)) return;
    throw new BucketError("cannot answer in the type asked for: this API speaks application/json", "not_acceptable");
  }

  get content(): Uint8Array {
    if (this.body instanceof BucketError) throw this.body;
    return this.body;
  }

  /** Report whether the response to a write may omit the bucket (RFC 7240). */
  get prefersMinimal(): boolean {
    const preferences = (this.headers.get("prefer") ?? []).join(",").split(",");
    const first = preferences.map((each) => PREFERENCE.exec(each)).find(Boolean);
    return first?.[1]?.toLowerCase() === "minimal";
  }

  /** The fences of a write. */
  get fences(): readonly string[] {
    const values = this.headers.get("bucketd-fence");
    if (values === undefined) return [];
    const fences = values.join(",").split(",").map((fence) => fence.trim());
    if (fences.length <= MAX_FENCES && fences.every((fence) => FENCE.test(fence))) return fences;
    throw new InvalidRequestError(`cannot use Bucketd-Fence: it must be 1 to ${MAX_FENCES} fences, each as its hold gave it`);
  }

  get preconditions(): Preconditions {
    return { ifMatch: this.tags("If-Match"), ifNoneMatch: this.tags("If-None-Match") };
  }

  private one(name: string, otherwise: string): string {
    return this.headers.get(name)?.[0] ?? otherwise;
  }

  private tags(header: string): EntityTags | undefined {
    const values = this.headers.get(header.toLowerCase());
    if (values === undefined) return undefined;
    const text = values.join(",").trim();
    const tags = { any: text === "*", strong: new Set<string>(), weak: new Set<string>() };
    if (tags.any) return tags;
    TAG.lastIndex = 0;
    for (let at = 0; at < text.length; at = TAG.lastIndex) {
      const found = TAG.exec(text);
      if (!found || TAG.lastIndex === at) break;
      if (found[2] !== undefined) tags[found[1] ? "weak" : "strong"].add(found[2]);
      if (TAG.lastIndex === text.length && tags.strong.size + tags.weak.size > 0) return tags;
    }
    throw new InvalidRequestError(`cannot use ${header}: it must be * or a list of ETags such as "4f1c…", in quotes`);
  }
}

/** Percent-decode once, as UTF-8. */
export function decode(text: string, what: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new InvalidRequestError(`cannot read ${what}: it is not percent-encoded UTF-8 (a literal % is %25)`);
  }
}

/** RFC 9110 §12.4.2. */
const WEIGHT = /^(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)$/;

function acceptsJson(accept: string): boolean {
  let [best, quality] = [-1, 0];
  for (const item of accept.split(",")) {
    const [kind, ...more] = item.split(";").map((part) => part.trim().toLowerCase());
    const rank = RANGES.indexOf(kind!);
    const given = more.find((part) => part.startsWith("q="))?.slice(2) ?? "1";
    const q = WEIGHT.test(given) ? Number(given) : 0;
    if (rank > best || (rank >= 0 && rank === best && q > quality)) [best, quality] = [rank, q];
  }
  return quality > 0;
}
