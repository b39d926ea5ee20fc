import { createLog } from '../../agent/log.ts';
import { surfaceTestParamsSchema } from '../../agent/protocol/index.ts';
import { surfaceTest } from '../../agent/tasks/surface-test.ts';
import { diskOf } from './loop-device.ts';

// A read-write test of the device that is named, to be killed by the test that started this.
const disk = await diskOf(process.argv[2] ?? '');
const quiet = () => undefined;
await surfaceTest(
  { params: surfaceTestParamsSchema.parse({ allInternal: true, mode: 'read-write' }), attempt: 1 },
  {
    ...{ log: createLog({}), signal: new AbortController().signal, prove: quiet, warn: quiet },
    ...{ showPlan: quiet, showSurface: quiet, step: () => ({ add: quiet, say: quiet, watch: quiet }) },
  },
  { list: async () => [disk] },
);
