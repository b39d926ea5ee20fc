import type { AssignedTask, TaskType } from '../protocol/index.ts';
import { capture } from './capture.ts';
import type { Handler, HandlerResult, TaskContext } from './context.ts';
import { deploy } from './deploy.ts';
import { inventory } from './inventory.ts';
import { surfaceTest } from './surface-test.ts';
import { wipe } from './wipe.ts';

/** A new task type does not compile until it is handled here. */
const handlers = {
  ...{ capture, deploy, inventory },
  'surface-test': surfaceTest,
  ...{ 'wipe-fast': wipe, 'wipe-normal': wipe, 'wipe-full': wipe },
} satisfies { [T in TaskType]: Handler<T> };

export const handle = (task: AssignedTask, context: TaskContext): Promise<HandlerResult> => {
  switch (task.type) {
    case 'capture':
      return handlers.capture(task, context);
    case 'deploy':
      return handlers.deploy(task, context);
    case 'inventory':
      return handlers.inventory(task, context);
    case 'surface-test':
      return handlers['surface-test'](task, context);
    case 'wipe-fast':
    case 'wipe-normal':
    case 'wipe-full':
      return handlers[task.type](task, context);
  }
};
