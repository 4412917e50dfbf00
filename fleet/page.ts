/** The hub's status page: one self-contained document, no script, refreshed by the browser. Escaped by hono's `html`. */
import { html } from 'hono/html';
import type { Current, Release } from '#fleet/protocol.ts';
import type { DeviceRecord, EventRecord, TargetRecord } from '#fleet/store.ts';
import { durationText, shortText, sizeText } from '#fleet/text.ts';

export interface PageData {
  fleet: string;
  url: string;
  mqttUrl: string;
  target: TargetRecord;
  devices: DeviceRecord[];
  releases: Release[];
  /** Newest first. */
  events: EventRecord[];
  nowMs: number;
}

const EVENTS_SHOWN = 100;

const agoText = (atMs: number, nowMs: number) => `${durationText(Math.max(0, nowMs - atMs))} ago`;

function updateText(update: Current['update']): string {
  switch (update.status) {
    case 'idle':
      return 'idle';
    case 'updating':
      return `to ${update.release}: ${update.stage}, ${sizeText(update.doneBytes)} of ${sizeText(update.allBytes)}`;
    case 'done':
      return `${update.release} done, ${sizeText(update.fetched.bytes)} as ${update.fetched.as}`;
    case 'failed':
      return `${update.release} failed: ${update.failure.code}: ${update.failure.text}`;
  }
}

const device = ({ name, online, seenAtMs, current }: DeviceRecord, nowMs: number) => html`<tr>
  <td>${name}</td>
  <td class="${online ? 'good' : 'dim'}">${online ? 'online' : `last heard ${agoText(seenAtMs, nowMs)}`}</td>
  <td>${current?.owner ? current.owner.release : '–'}</td>
  <td>${current?.generation ?? '–'}</td>
  <td class="${current?.update.status === 'failed' ? 'bad' : ''}">${current ? updateText(current.update) : '–'}</td>
</tr>`;

const release = (one: Release, target: Release | null) => {
  const images = Object.values(one.services).map((service) => service.image);
  const bytes = images.flatMap((image) => image.layers).reduce((sum, layer) => sum + layer.blob.bytes, 0);
  const deltas = images.flatMap((image) => image.deltas).map((delta) => sizeText(delta.blob.bytes));
  return html`<tr>
    <td>${one.app}</td>
    <td>${one.id}${one.id === target?.id && one.app === target.app ? html` <b>target</b>` : ''}</td>
    <td><code>${shortText(one.commit)}</code></td>
    <td>${new Date(one.createdAtMs).toISOString().slice(0, 19)}Z</td>
    <td>${sizeText(bytes)}</td>
    <td>${deltas.join(', ') || '–'}</td>
  </tr>`;
};

const event = (one: EventRecord) => html`<tr>
  <td>${new Date(one.receivedAtMs).toISOString().slice(11, 23)}</td>
  <td>${one.device}</td>
  <td>${one.type}</td>
  <td>${one.text}</td>
</tr>`;

export const statusPage = (data: PageData) => html`<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta http-equiv="refresh" content="2">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>Midair: fleet ${data.fleet}</title>
    <style>
      :root { color-scheme: light dark; }
      body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 1.5rem auto; padding: 0 1rem; }
      table { border-collapse: collapse; width: 100%; }
      th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884; vertical-align: top; }
      th { font-weight: 600; } .dim { opacity: .65; } .good { color: #2a8a3e; } .bad { color: #c33; }
      td { overflow-wrap: anywhere; } h2 { margin: 1.6rem 0 .4rem; font-size: 1.1rem; }
    </style>
  </head>
  <body>
    <h1>Fleet ${data.fleet}</h1>
    <p>Target: ${
      data.target.release
        ? html`<b>${data.target.release.app} ${data.target.release.id}</b>, generation ${data.target.generation}`
        : 'none yet'
    }.
    Push to <code>${data.url}/git/{app}.git</code>; devices connect to <code>${data.mqttUrl}</code>.</p>
    <h2>Devices</h2>
    <table><tr><th>device<th>presence<th>flies<th>generation<th>update</tr>
    ${data.devices.map((one) => device(one, data.nowMs))}</table>
    <h2>Releases</h2>
    <table><tr><th>app<th>release<th>commit<th>made<th>compressed<th>deltas</tr>
    ${data.releases.map((one) => release(one, data.target.release))}</table>
    <h2>Events</h2>
    <table><tr><th>time (UTC)<th>device<th>type<th>what</tr>
    ${data.events.slice(0, EVENTS_SHOWN).map(event)}</table>
  </body>
</html>`;
