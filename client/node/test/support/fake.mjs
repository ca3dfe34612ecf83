import { once } from "node:events";
import { rmSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { tempDir } from "./temp.mjs";

/** One answer as bytes; `body` an object or text. */
export function answer(status, body, headers = {}) {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const all = { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text), ...headers };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${status} Told\r\n${lines.join("")}\r\n${text}`;
}

export const stored = (bucket, revision = 1) =>
  answer(200, { success: true, bucket, revision }, { ETag: `"e${revision}"` });

function parse(text) {
  const [head, body] = text.split("\r\n\r\n", 2);
  const [line, ...fields] = head.split("\r\n");
  const [method, target] = line.split(" ");
  const pairs = fields.map((field) => field.split(/: ?(.*)/s, 2));
  const headers = Object.fromEntries(pairs.map(([name, value]) => [name.toLowerCase(), value]));
  return { method, target, headers, body };
}

function whole(text) {
  const end = text.indexOf("\r\n\r\n");
  if (end < 0) return false;
  const length = /\r\ncontent-length: (\d+)/i.exec(text.slice(0, end))?.[1] ?? "0";
  return Buffer.byteLength(text) >= Buffer.byteLength(text.slice(0, end)) + 4 + Number(length);
}

/**
 * A server on a unix socket that is told how to answer: `script(request, socket, server)`
 * returns the bytes to answer with, or deals with `socket` itself and returns nothing.
 */
export class Fake {
  requests = [];
  connections = 0;
  sockets = new Set();

  static async start(t, script, path = join(tempDir(t), "s.sock")) {
    const fake = new Fake(path, script);
    await fake.listen();
    t.after(() => fake.stop());
    return fake;
  }

  constructor(path, script) {
    this.path = path;
    this.script = script;
  }

  async listen() {
    this.server = net.createServer({ allowHalfOpen: true }, (socket) => this.serve(socket));
    this.server.listen(this.path);
    await once(this.server, "listening");
  }

  serve(socket) {
    this.connections += 1;
    this.sockets.add(socket);
    let text = "";
    socket.setEncoding("utf8");
    socket.on("error", () => undefined);
    socket.on("end", () => socket.destroy());
    socket.on("close", () => this.sockets.delete(socket));
    socket.on("data", async (data) => {
      text += data;
      if (!whole(text)) return;
      const request = parse(text);
      text = "";
      this.requests.push(request);
      const bytes = await this.script(request, socket, this);
      if (bytes !== undefined) socket.write(bytes);
    });
  }

  closeConnections() {
    for (const socket of this.sockets) socket.destroy();
  }

  async stop() {
    this.closeConnections();
    if (this.server.listening) await new Promise((done) => this.server.close(done));
    rmSync(this.path, { force: true });
  }
}
