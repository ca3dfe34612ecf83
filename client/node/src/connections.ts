import * as net from "node:net";
import { clearTimeout, now, setImmediate, setTimeout } from "./clock.js";
import { type HttpResponse, MalformedResponse, ResponseReader } from "./http1.js";
import { fits } from "./socket-path.js";

/** The daemon certainly did not receive the whole request. `reason` is the system's error. */
export class NotSent extends Error {
  constructor(readonly reason: NodeJS.ErrnoException) {
    super(reason.message);
  }
}

/** The connection ended after the request and before its response was complete. */
export class ConnectionLost extends Error {}

/** No complete response in time. Unless the whole request was `sent`, the daemon has not acted on it. */
export class TimedOut extends Error {
  constructor(readonly sent: boolean) {
    super();
  }
}

const MAX_CONNECTIONS = 16;
const READ_BUFFER_BYTES = 64 * 1024;
const FRESH_MS = 5;

const pools = new Map<string, Pool>();

/** Send one request over a keep-alive connection to `socketPath`; return its response within `ms`. */
export function exchange(socketPath: string, bytes: string, ms: number): Promise<HttpResponse> {
  return new Promise((resolve, reject) => {
    refuseLongPath(socketPath);
    const pool = pools.get(socketPath) ?? new Pool(socketPath);
    pools.set(socketPath, pool);
    pool.run(new Exchange(pool, bytes, ms, resolve, reject));
  });
}

/** Throw NotSent for a path that the system would cut to that of another socket. */
export function refuseLongPath(socketPath: string): void {
  if (!fits(socketPath)) throw new NotSent(Object.assign(new Error("cannot connect: the path of the socket is too long"), { code: "ENAMETOOLONG" }));
}

/** One request with its time limit; the pool gives it a connection. */
class Exchange {
  connection: Connection | undefined;
  // The timer alone keeps the process alive: the sockets do not.
  private readonly timer: NodeJS.Timeout;

  constructor(
    private readonly pool: Pool,
    readonly bytes: string,
    ms: number,
    private readonly onResponse: (response: HttpResponse) => void,
    private readonly onFailure: (error: Error) => void,
  ) {
    this.timer = setTimeout(() => this.expire(), ms);
  }

  succeed(response: HttpResponse): void {
    clearTimeout(this.timer);
    this.onResponse(response);
  }

  fail(error: Error): void {
    clearTimeout(this.timer);
    this.onFailure(error);
  }

  private expire(): void {
    // Closing the connection discards the late response, so that no later request gets it.
    if (this.connection) return this.connection.abandon();
    this.pool.withdraw(this);
    this.fail(new TimedOut(false));
  }
}

/** The connections to one socket, and the exchanges that wait for one. */
class Pool {
  private readonly idle: Connection[] = [];
  private readonly waiting: Exchange[] = [];
  private open = 0;

  constructor(readonly socketPath: string) {}

  /** Give the exchange a connection, now or when one is free. */
  run(exchange: Exchange): void {
    exchange.connection = undefined;
    const kept = this.idle.pop();
    if (kept) kept.start(exchange);
    else if (this.open < MAX_CONNECTIONS) this.connect(exchange);
    else this.waiting.push(exchange);
  }

  withdraw(exchange: Exchange): void {
    this.waiting.splice(this.waiting.indexOf(exchange), 1);
  }

  /** Take back a connection that can carry another request. */
  release(connection: Connection): void {
    const next = this.waiting.shift();
    if (next) connection.start(next);
    else this.idle.push(connection);
  }

  /** Forget a connection that is closed. */
  remove(connection: Connection): void {
    const at = this.idle.indexOf(connection);
    if (at >= 0) this.idle.splice(at, 1);
    this.open -= 1;
    const next = this.waiting.shift();
    if (next) this.connect(next);
    else if (this.open === 0) pools.delete(this.socketPath);
  }

  private connect(exchange: Exchange): void {
    this.open += 1;
    new Connection(this).start(exchange);
  }
}

type State = "connecting" | "idle" | "checking" | "busy" | "closed";

/** One keep-alive connection, with one request at a time. */
class Connection {
  private readonly socket: net.Socket;
  private state: State = "connecting";
  private exchange: Exchange | undefined;
  private reader = new ResponseReader();
  private lastUsed = 0;

  constructor(private readonly pool: Pool) {
    const buffer = Buffer.allocUnsafeSlow(READ_BUFFER_BYTES);
    const callback = (size: number) => {
      this.receive(buffer.subarray(0, size));
      return true;
    };
    this.socket = net.connect({ path: pool.socketPath, onread: { buffer, callback } });
    this.socket.unref();
    this.socket.once("connect", () => this.send());
    this.socket.once("end", () => this.finish());
    this.socket.once("close", () => this.close(new ConnectionLost()));
    this.socket.on("error", (error) => this.close(this.reader.hasBegun ? new ConnectionLost() : classify(error)));
  }

  /** Send the request of an exchange, and settle it. */
  start(exchange: Exchange): void {
    this.exchange = exchange;
    exchange.connection = this;
    if (this.state === "connecting") return;
    if (now() - this.lastUsed < FRESH_MS) return this.send();
    this.state = "checking";
    this.sendIfOpen();
  }

  /** Close the connection because the time of its exchange is over. */
  abandon(): void {
    const sent = this.state === "busy" && this.socket.writableLength === 0;
    const exchange = this.exchange!;
    this.exchange = undefined;
    this.close(new ConnectionLost());
    exchange.fail(new TimedOut(sent));
  }

  /**
   * Send after the event loop has polled once. The kernel knows that the other end closed this
   * connection while it was idle, but Node knows it only after a poll: the first turn may resume
   * after the poll that has just been made, the second cannot.
   */
  private sendIfOpen(): void {
    setImmediate(() =>
      setImmediate(() => {
        if (this.state === "checking") this.send();
      }),
    );
  }

  private send(): void {
    this.state = "busy";
    this.socket.write(this.exchange!.bytes, "utf8");
  }

  private receive(bytes: Buffer): void {
    // No request is open, so the other end does not speak HTTP correctly.
    if (this.state !== "busy") return this.close(new ConnectionLost());
    try {
      const response = this.reader.feed(bytes);
      if (response) this.succeed(response);
    } catch (error) {
      this.close(error as Error);
    }
  }

  private succeed(response: HttpResponse): void {
    const exchange = this.exchange!;
    // A request that was refused before it was read may not be written completely yet.
    const reusable = this.reader.keepAlive && this.socket.writableLength === 0;
    this.exchange = undefined;
    if (reusable) {
      this.reader = new ResponseReader();
      this.lastUsed = now();
      this.state = "idle";
      this.pool.release(this);
    } else {
      this.close(new ConnectionLost());
    }
    exchange.succeed(response);
  }

  /** Handle the end of what the other side sends. */
  private finish(): void {
    const response = this.state === "busy" ? this.reader.end() : undefined;
    if (response) this.succeed(response);
    else this.close(new ConnectionLost());
  }

  private close(error: Error): void {
    if (this.state === "closed") return;
    const { exchange, state } = this;
    this.exchange = undefined;
    this.state = "closed";
    this.socket.destroy();
    // Nothing of this exchange was sent, so it only needs another connection.
    if (exchange && state === "checking") this.pool.run(exchange);
    this.pool.remove(this);
    if (exchange && state !== "checking") exchange.fail(error);
  }
}

/**
 * Return the outcome of an error before any response. On a unix socket the system reports EPIPE if
 * the other end was closed before the request was written whole, and ECONNRESET if it was closed
 * with a part of the request unread: in both cases the daemon does not have the whole request. After
 * a normal end the outcome is unknown; Node reports it as "socket hang up", without a `syscall`.
 */
export function classify(error: NodeJS.ErrnoException): Error {
  if (error.code?.startsWith("HPE_")) return new MalformedResponse();
  if (error.syscall === "connect" || error.code === "EPIPE") return new NotSent(error);
  if (error.code === "ECONNRESET" && error.syscall) return new NotSent(error);
  return new ConnectionLost();
}
