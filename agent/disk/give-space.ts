import { MIB } from './layout.ts';

/** Something that can give space: bytes that it has, keeps where there is room, and needs. All equal: it gives none. */
export interface Giver {
  size: number;
  roomy: number;
  minimum: number;
}

/** Free space that a shrunk filesystem keeps where there is room: a tenth of its minimum, at least this much. */
const SLACK = 256 * MIB;

/** steps of the search between "as it was" and "as small as it can be" */
const STEPS = 2 ** 40;

/** `minimum`: bytes, null where it keeps its size; `roundUp`: to a size that it can have. */
export const giverOf = (size: number, minimum: number | null, roundUp: (bytes: number) => number): Giver => {
  const rigid = { size, roomy: size, minimum: size };
  if (minimum === null) return rigid;
  const floor = roundUp(Math.max(1, minimum));
  if (floor >= size) return rigid;
  return { size, roomy: Math.min(size, roundUp(minimum + Math.max(minimum / 10, SLACK))), minimum: floor };
};

/** Step 0: as it was; STEPS: down to its slack; LAST_STEP: its minimum. Never grows with the step. */
export const sizeAt = (
  { size, roomy, minimum }: Giver,
  step: number,
  roundDown: (bytes: number) => number,
): number => {
  if (step === 0 || minimum === size) return size;
  const exact =
    step <= STEPS ? size - (size - roomy) * (step / STEPS) : roomy - (roomy - minimum) * (step / STEPS - 1);
  return exact >= size ? size : Math.max(minimum, roundDown(exact));
};

export const LAST_STEP = 2 * STEPS;

/** The least that has to be taken, by bisection; null where even everything is too little. */
export const leastStep = (fits: (step: number) => boolean): number | null => {
  if (!fits(LAST_STEP)) return null;
  let [tooLittle, enough] = [-1, LAST_STEP];
  while (enough - tooLittle > 1) {
    const middle = Math.floor((tooLittle + enough) / 2);
    if (fits(middle)) enough = middle;
    else tooLittle = middle;
  }
  return enough;
};
