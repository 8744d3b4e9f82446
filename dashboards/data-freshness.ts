import {dashboard, line, row} from './layout.ts';
import * as freshness from './panels/freshness.ts';

export const dataFreshness = () =>
  dashboard({
    uid: 'data-freshness',
    title: 'Data freshness',
    why: 'For whoever is on call: is it late, is it idle, and what to do now.',
    tags: ['operations'],
    from: 'now-1h',
    rows: [
      row(
        'At a glance',
        line(
          4,
          [5, freshness.completeUpTo()],
          [5, freshness.secondsBehind()],
          [5, freshness.tablesInTrouble()],
          [5, freshness.slowestLag()],
          [4, freshness.otherCurrencies()],
        ),
        line(9, [24, freshness.freshnessByTable()]),
      ),
      row(
        'Over time',
        line(8, [12, freshness.lagOverTime()], [12, freshness.worstLagOverTime()]),
        line(8, [12, freshness.rowsPerSecond()], [12, freshness.watermarks()]),
        line(8, [16, freshness.slotWal()], [8, freshness.slots()]),
      ),
      row('Help', line(8, [24, freshness.whatToDo()])),
    ],
  });
