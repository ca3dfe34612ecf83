// The server for tests, in the hands of another program: it says where it listens, and for each
// line it is given, "start" or "stop", that this is done. It ends with its input.
import { createInterface } from "node:readline";
import { startServer } from "../../dist/testing/index.mjs";

const server = await startServer();
console.log(server.socket);
for await (const line of createInterface({ input: process.stdin })) {
  await server[line]();
  console.log(line);
}
await server.close();
