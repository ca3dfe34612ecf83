import { BucketError } from "./errors.js";

/** Errors that lead to a call already: that of a function which a caller passes to `hold` keeps its own. */
const done = new WeakSet<BucketError>();

/**
 * Return the error with a stack that begins at the line which awaits `method`, the async function in
 * whose handler this is called.
 *
 * A response arrives in a turn of the event loop that knows nothing of the caller, but the runtime
 * knows who awaits. It is asked once something has failed, since to note the caller at each call would
 * take a tenth of its time. The stack stays as it is where nobody awaits the method itself.
 */
export function located(error: unknown, method: Function): unknown {
  if (!(error instanceof BucketError) || done.has(error)) return error;
  done.add(error);
  const caller: { stack?: string } = {};
  // Other runtimes may lack it.
  Error.captureStackTrace?.(caller, method);
  const frames = caller.stack?.split("\n").slice(1).filter((line) => !line.includes("(node:internal/")) ?? [];
  if (frames.length > 0) error.stack = [`${error.name}: ${error.message}`, ...frames].join("\n");
  return error;
}

/** Make the async methods of a class reject with errors whose stack begins at their caller. */
export function locateErrors(prototype: object, methods: readonly string[]): void {
  for (const name of methods) {
    const { value: method } = Object.getOwnPropertyDescriptor(prototype, name)!;
    const calling = async function (this: unknown, ...given: unknown[]): Promise<unknown> {
      try {
        return await method.apply(this, given);
      } catch (error) {
        throw located(error, calling);
      }
    };
    Object.defineProperty(calling, "name", { value: name });
    Object.defineProperty(prototype, name, { value: calling, configurable: true, writable: true });
  }
}
