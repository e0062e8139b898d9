// The activities of the Worker.
import { sleep } from '@temporalio/activity';

// Holds a slot for so many milliseconds; a cancellation ends the sleep.
export async function work(milliseconds: number): Promise<number> {
  await sleep(milliseconds);
  return milliseconds;
}

// The Build ID of the Worker that runs it.
export async function version(): Promise<string> {
  return process.env.TEMPORAL_WORKER_BUILD_ID ?? '';
}

// Tells which language's Worker took the task.
export async function greet(name: string): Promise<string> {
  return `typescript greets ${name}`;
}
