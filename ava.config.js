// Files run one after another by two workers: the machine CI gives has two cores and each file drives real servers.
export default {
  files: ['**/*.test.ts'],
  extensions: {ts: 'module'},
  concurrency: 2,
  timeout: '5m',
  workerThreads: false,
};
