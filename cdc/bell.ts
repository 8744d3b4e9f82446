/** Wakes one that waits. Whoever looks whether there is something to do, and then waits at once, misses nothing. */
export class Bell {
  #ring: () => void = () => {};

  ring(): void {
    this.#ring();
  }

  /** Resolves when it rings, at the latest after so many milliseconds. */
  async heard(ms?: number): Promise<void> {
    const {promise, resolve} = Promise.withResolvers<void>();
    this.#ring = resolve;
    const timer = ms === undefined ? undefined : setTimeout(resolve, ms);
    await promise;
    clearTimeout(timer);
  }
}
