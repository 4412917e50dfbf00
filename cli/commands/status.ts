/** `midair status`: what the fleet's devices fly and how their updates go, as the hub knows it. */
import { Command, Option } from 'commander';
import { httpUrl } from '#cli/commands/arguments.ts';
import { type EventRecord, HubClient, type HubStatus } from '#cli/hub-client.ts';
import { ago, bytesText, durationText, table } from '#cli/text.ts';

export function statusCommand(): Command {
  return new Command('status')
    .description('Shows the fleet: devices, releases, updates, last events.')
    .addOption(
      new Option('--hub <url>', 'the hub')
        .env('MIDAIR_HUB')
        .argParser(httpUrl)
        .default('http://127.0.0.1:8420'),
    )
    .option('--json', 'as the hub gives it')
    .addHelpText('after', '\nExample:\n  $ midair status --hub http://127.0.0.1:8420 --json')
    .action(async (flags: { hub: string; json?: true }) => {
      const hub = new HubClient(flags.hub);
      const status = await hub.status();
      if (flags.json) {
        process.stdout.write(`${JSON.stringify(status, null, 2)}\n`);
        return;
      }
      process.stdout.write(statusText(status, await hub.events(), Date.now()));
    });
}

/** Pure: the tables as printed. */
export function statusText(status: HubStatus, events: EventRecord[], nowMs: number): string {
  const { target } = status;
  const wanted = target.release ? `${target.release.app} ${target.release.id}` : 'nothing yet';
  const ways = target.release ? waysText(target.release, status.releases) : '';
  const head = `fleet ${status.fleet}: target ${wanted}, generation ${target.generation}\n${ways}`;
  if (status.devices.length === 0) return `${head}no device was heard of yet\n`;
  const rows = status.devices.map(({ name, online, seenAtMs, current }) => {
    const last = events.filter((event) => event.device === name).at(-1);
    return [
      name,
      online ? 'online' : `heard ${ago(seenAtMs, nowMs)}`,
      current?.owner?.release ?? '–',
      current === null ? '–' : String(current.generation),
      updateText(current?.update),
      last === undefined ? '–' : `${last.text} (${ago(last.receivedAtMs, nowMs)})`,
    ];
  });
  return `${head}${table(['device', 'presence', 'flies', 'generation', 'update', 'last event'], rows)}`;
}

type Release = HubStatus['releases'][number];

/** What a device is to expect, by what it has: bytes to fetch, and what applying them took at the hub. */
function waysText(target: Release, releases: readonly Release[]): string {
  const nameOf = (imageId: string): string =>
    releases.find(({ services }) => Object.values(services).some(({ image }) => image.id === imageId))?.id ??
    imageId.slice('sha256:'.length, 'sha256:'.length + 12);
  const rows = Object.values(target.services).flatMap(({ image }) => [
    ...image.deltas.map(({ basis, blob, cost }) => [
      `delta from ${nameOf(basis)}`,
      bytesText(blob.bytes),
      cost ? bytesText(cost.outputBytes) : '–',
      cost ? durationText(cost.cpuMs) : '–',
      cost?.memoryBytes === undefined ? '–' : bytesText(cost.memoryBytes),
    ]),
    [
      'whole image',
      bytesText(image.layers.reduce((sum, { blob }) => sum + blob.bytes, image.config.bytes)),
      bytesText(image.layers.reduce((sum, { bytes }) => sum + bytes, 0)),
      '–',
      '–',
    ],
  ]);
  return `${table([`${target.app} ${target.id} by`, 'to fetch', 'to make', 'a core at the hub', 'memory'], rows)}\n`;
}

type Update = NonNullable<HubStatus['devices'][number]['current']>['update'];

function updateText(update: Update | undefined): string {
  switch (update?.status) {
    case undefined:
      return '–';
    case 'idle':
      return 'idle';
    case 'updating': {
      const share =
        update.allBytes > 0 ? `, ${Math.round((100 * update.doneBytes) / update.allBytes)} %` : '';
      return `to ${update.release}: ${update.stage}${share}`;
    }
    case 'done':
      return `${update.release} done, ${bytesText(update.fetched.bytes)} (${update.fetched.as})`;
    case 'failed':
      return `${update.release} failed: ${update.failure.code}: ${update.failure.text}`;
  }
}
