/**
 * Loaded before the pipeline (`node --import`): its parent can set this process's clock back. Date.now and new Date()
 * are what JavaScript has of a clock; the servers, the kernel and performance.now go on as they are.
 */
const now = Date.now;
let back = Number(process.env.FRESHET_TEST_CLOCK_BACK ?? 0);
Date.now = () => now() - back;
globalThis.Date = new Proxy(Date, {
  construct: (target, args: [], newTarget) =>
    Reflect.construct(target, args.length > 0 ? args : [Date.now()], newTarget),
});
process.on('message', (message: {stepBack?: number}) => {
  back += message.stepBack ?? 0;
});
process.channel?.unref();
