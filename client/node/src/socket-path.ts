import { statSync } from "node:fs";

/** The longest path of a unix socket on Linux, in bytes. */
export const MAX_SOCKET_PATH_BYTES = 107;

/** Report whether the path fits; Node 18 and 20 silently cut a longer one and use another socket. */
export function fits(path: string): boolean {
  return Buffer.byteLength(path) <= MAX_SOCKET_PATH_BYTES;
}

/** Return why no daemon can listen at this path, if so. */
export function permanentFailure(path: string): string | undefined {
  if (!fits(path)) return `the path is longer than the ${MAX_SOCKET_PATH_BYTES} bytes that the path of a socket may have`;
  try {
    return statSync(path).isSocket() ? undefined : "the file there is not a socket";
  } catch {
    // The file does not exist yet, or may not be examined; the error of connecting is more specific.
    return undefined;
  }
}
