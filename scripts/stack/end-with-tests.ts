import {registerCompletionHandler} from 'ava';

// kafkajs can leave a connection that nobody uses; AVA would wait until the broker closes it, ten minutes later.
registerCompletionHandler(() => process.exit());
