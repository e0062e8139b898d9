// Activities in Node.js for the worker runtime, which keeps this process and gives it one task at a time.
import { writeFileSync } from "node:fs";

Object.defineProperty(process, "stdout", { get: () => process.stderr }); // before console.log binds the real one
const handlers = new Map();
let running = {}, done, rest = "";

export class Cancelled extends Error {}

export class Failure extends Error {
  constructor(message, fields) {
    super(message);
    this.fields = JSON.parse(JSON.stringify({ type: this.constructor.name, ...fields })); // throws what can't be sent
  }
}

export const activity = (type, handler) => handlers.set(type, handler);

function send(id, kind, value) {
  const json = JSON.stringify(value ?? null);
  if (json === undefined) throw new TypeError(`a ${typeof value} is not JSON`);
  writeFileSync(1, `{"id":${id},"${kind}":${json}}\n`); // all of it, also when the pipe is full
}

async function execute({ heartbeat: lastHeartbeat, ...message }) {
  const { signal } = (running = Object.assign(new AbortController(), { id: message.id }));
  const heartbeat = (details) => { send(message.id, "heartbeat", details); signal.throwIfAborted(); };
  let result;
  try {
    const handler = handlers.get(message.type) ?? handlers.get("*");
    if (!handler) throw new Failure(`no handler for ${message.type}`, { type: "UnknownActivityType" });
    result = (await handler({ ...message, lastHeartbeat, heartbeat, signal }, ...message.args)) ?? null;
    send(message.id, "result", result);
  } catch (error) {
    const type = result === undefined ? error?.constructor?.name : "HandlerOutputInvalid";
    const failure = { message: String(error?.message ?? error), type, stackTrace: error?.stack };
    if (error instanceof Cancelled || error?.cause instanceof Cancelled) send(message.id, "cancel", true);
    else send(message.id, "failure", { ...failure, ...(error instanceof Failure && error.fields) });
  }
}

export async function run() {
  for await (const chunk of process.stdin.setEncoding("utf8")) {
    const lines = (rest + chunk).split("\n"); // not readline, for which U+2028 ends a line as well
    rest = lines.pop();
    for (const message of lines.map((line) => JSON.parse(line)))
      if ("type" in message) done = execute(message).then(() => (running = {}));
      else if (message.id === running.id) running.abort(new Cancelled(message.cancel));
  }
  await done;
  process.exit(0);
}
