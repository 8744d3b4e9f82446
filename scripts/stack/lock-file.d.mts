/** When a process started, in a form to compare only; null when it is gone or a zombie. With the pid it names one process for good: pids are used again. */
export function startedAt(pid: number): string | null;
/** Takes the lock at `path`, also over from a process that died, or says which living process holds it. */
export function tryLock(path: string): {release: () => void; heldBy: null} | {release: null; heldBy: number};
