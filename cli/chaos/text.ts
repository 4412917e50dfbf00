/** Experiments and their history as a person reads them. Pure. */
import type { ExperimentJson } from '#cli/chaos/api.ts';
import type { LedgerRecord } from '#cli/chaos/ledger.ts';
import { durationText, table } from '#cli/text.ts';

export function listText(experiments: readonly ExperimentJson[], nowMs: number): string {
  if (experiments.length === 0) return 'no experiment was made yet: midair chaos create --help\n';
  const rows = experiments.map((one) => [
    one.id,
    one.failure,
    one.criteria,
    `${durationText(one.durationMs)} every ${durationText(one.frequencyMs)}, chance ${one.probability}`,
    one.phase === 'running' ? `${durationText(Math.max(0, Date.parse(one.until) - nowMs))} left` : one.phase,
    `${one.injections} of ${one.beats} beats`,
    one.active.map(({ target }) => target.slice(0, 24)).join(', ') || '–',
  ]);
  return table(['id', 'failure', 'on', 'how', 'phase', 'injected', 'now in'], rows);
}

/** One line a record: when, which, what. */
export function historyText(records: readonly LedgerRecord[]): string {
  const owners = new Map<string, string>();
  return records
    .map((record) => {
      if (record.type === 'begin') owners.set(record.injection, record.experiment);
      const experiment = 'experiment' in record ? record.experiment : (owners.get(record.injection) ?? '');
      const injection = 'injection' in record ? record.injection : '';
      const by = record.type === 'undone' && record.by !== 'injector' ? ` by the ${record.by}` : '';
      const at = new Date(record.atMs).toISOString().slice(0, 23).replace('T', ' ');
      return `${at}  ${experiment.padEnd(4)} ${injection.padEnd(5)} ${`${record.type}${by}`.padEnd(11)} ${record.text}\n`;
    })
    .join('');
}
