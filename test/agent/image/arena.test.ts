import test from 'ava';
import fc from 'fast-check';
import { createArena, PAGE, type Region } from '../../../agent/image/arena.ts';

const size = 1024 * 1024;

test('regions are page-aligned, apart from each other, and all memory comes back', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(fc.integer({ min: 1, max: 100_000 }), fc.nat(5))), async (steps) => {
      const arena = createArena(size);
      const held: Region[] = [];
      for (const [bytes, which] of steps) {
        const region = arena.tryAllocate(bytes);
        if (region) held.push(region);
        else held.splice(which % held.length, 1)[0]?.release();
        const sorted = held.toSorted((a, b) => a.at - b.at);
        for (const [number, { at, bytes: memory }] of sorted.entries()) {
          if (at % PAGE !== 0 || at + memory.length > (sorted[number + 1]?.at ?? size)) return false;
        }
      }
      for (const region of held) region.release();
      return arena.tryAllocate(size) !== undefined;
    }),
  );
  t.pass();
});

test('who waits is served in order once memory is free', async (t) => {
  const arena = createArena(size);
  const all = await arena.allocate(size);
  const order: string[] = [];
  const large = arena.allocate(size - PAGE).then((region) => {
    order.push('large');
    region.release();
  });
  const small = arena.allocate(PAGE).then(() => order.push('small'));
  t.is(arena.tryAllocate(PAGE), undefined);
  all.release();
  all.release();
  await Promise.all([large, small]);
  t.deepEqual(order, ['large', 'small']);
});

test('waiting ends with the signal, and the place in line is given up', async (t) => {
  const arena = createArena(size);
  const all = await arena.allocate(size);
  const controller = new AbortController();
  const waiting = arena.allocate(1, controller.signal);
  controller.abort(new Error('stop'));
  await t.throwsAsync(waiting, { message: 'stop' });
  all.release();
  t.truthy(arena.tryAllocate(size));
});

test('more than there is at all is an error, not a wait', async (t) => {
  await t.throwsAsync(createArena(size).allocate(size + 1), { code: 'INTERNAL' });
});
