// The Workflows of the Worker, in a module of their own: the SDK runs them in isolation, without Node's own modules.
// The exported names are the Workflow types.
import { condition, defineSignal, proxyActivities, setHandler, setWorkflowOptions } from '@temporalio/workflow';
import type { version, work } from './activities';

const { Work } = proxyActivities<{ Work: typeof work }>({ startToCloseTimeout: '1 hour' });
const { Version } = proxyActivities<{ Version: typeof version }>({ startToCloseTimeout: '1 minute' });

const go = defineSignal('go');
const say = defineSignal<[string]>('say');

// Runs so many activities of so many milliseconds side by side.
export async function Batch(activities: number, milliseconds: number): Promise<void> {
  await Promise.all(Array.from({ length: activities }, () => Work(milliseconds)));
}

// Asks for the version at its start, and again after the signal "go".
async function hold(): Promise<void> {
  let gone = false;
  setHandler(go, () => {
    gone = true;
  });
  await Version();
  await condition(() => gone);
  await Version();
}

// A function of its own each, for the versioning behaviour belongs to the function.
export async function HoldPinned(): Promise<void> {
  await hold();
}
setWorkflowOptions({ versioningBehavior: 'PINNED' }, HoldPinned);

export async function HoldAutoUpgrade(): Promise<void> {
  await hold();
}
setWorkflowOptions({ versioningBehavior: 'AUTO_UPGRADE' }, HoldAutoUpgrade);

// Waits for the signal "say" and tells which language's Worker heard it.
export async function Listen(): Promise<string> {
  let heard: string | undefined;
  setHandler(say, (text) => {
    // The first word counts, as with a channel that is read once.
    heard ??= text;
  });
  await condition(() => heard !== undefined);
  return `typescript heard ${heard}`;
}
