// Files run one after another by two workers: the machine CI gives has two cores and each file drives real servers.
export default {
  files: ['**/*.test.ts'],
  extensions: {ts: 'module'},
  require: ['./scripts/stack/end-with-tests.ts'],
  concurrency: 2,
  timeout: '5m',
  workerThreads: false,
  // kafkajs 2.2.4 starts a timer with a negative time, which is harmless; Node 24 would tell it between the lines.
  nodeArguments: ['--disable-warning=TimeoutNegativeWarning'],
};
