/** A failure whose message says all that a person needs: print it without a stack trace. */
export class StackError extends Error {
  override name = 'StackError';
}
