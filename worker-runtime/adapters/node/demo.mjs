import { activity, Failure, run } from "./temporal-handler.mjs";
import { setTimeout as wait } from "node:timers/promises";

activity("Echo", (task, ...args) => args);

activity("Beat", async (task, count) => {
  for (let number = 1; number <= count; number += 1) {
    task.heartbeat(number);
    await wait(50);
  }
  return task.lastHeartbeat;
});

activity("Sleep", async (task, seconds) => {
  const end = Date.now() + seconds * 1000;
  while (Date.now() < end) {
    task.heartbeat();
    await wait(50);
  }
});

// Sends no heartbeat: only the signal tells it.
activity("Wait", (task, seconds) => wait(seconds * 1000, null, { signal: task.signal }));

activity("Fail", (task, message) => {
  const details = [{ why: message }];
  throw new Failure(message, { type: "Broken", nonRetryable: true, nextRetryDelay: 2.5, details });
});

activity("Crash", () => process.exit(3));

activity("Print", () => {
  console.log("noise");
  return "quiet";
});

activity("Raise", () => {
  throw new RangeError("no such picture");
});

activity("NotJson", () => 1n);

if (process.argv.includes("any")) {
  activity("*", ({ type, info }, ...args) => ({ type, info, args }));
}

await run();
