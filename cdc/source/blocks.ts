/** A range of blocks of PostgreSQL's heap: the first one, and the one behind the last; to the end where there is none. */
export interface Blocks {
  readonly from: number;
  readonly to: number | undefined;
}

/** Conditions for rows within the range; none for a range of everything. */
export const inBlocks = ({from, to}: Blocks): string[] => [
  ...(from === 0 ? [] : [`ctid >= '(${from},0)'`]),
  ...(to === undefined ? [] : [`ctid < '(${to},0)'`]),
];
