/**
 * Git's pre-receive and post-receive hook, as a program: tells the hub what is pushed, prints what it answers.
 *
 * Invariant: it ends with 0 only if the hub said so. No hub, no answer or half an answer is a refusal.
 * It imports nothing, so that it starts fast and needs nothing but Node.
 */
import http from 'node:http';
import { text } from 'node:stream/consumers';

const phase = process.argv[2] ?? '';
const { MIDAIR_HOOK_URL: url = '', MIDAIR_HOOK_TOKEN: token = '' } = process.env;

const lines = (await text(process.stdin)).split('\n').filter((line) => line !== '');
const refs = lines.map((line) => {
  const [before = '', after = '', ...rest] = line.split(' ');
  return { before, after, ref: rest.join(' ') };
});
const environment: Record<string, string> = {};
for (const name of ['GIT_OBJECT_DIRECTORY']) {
  const value = process.env[name];
  if (value !== undefined) environment[name] = value;
}

let status: number | undefined;
const hear = (line: string) => {
  const answer = JSON.parse(line) as { line?: string; exit?: number };
  // To stderr: git relays both, and stderr is never buffered.
  if (answer.line !== undefined) process.stderr.write(`${answer.line}\n`);
  if (answer.exit !== undefined) status = answer.exit;
};

const lost = (why: string) => {
  if (status !== undefined) return;
  status = 1;
  process.stderr.write(`Midair: error HUB_LOST: the hub did not answer to the end (${why})\n`);
  process.stderr.write(
    'Midair:   next: see that the hub runs, then push again; what flew before is still the target\n',
  );
};

await new Promise<void>((done) => {
  const request = http.request(
    `${url}/hook/${phase}`,
    { method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' } },
    (response) => {
      let rest = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        const parts = (rest + chunk).split('\n');
        rest = parts.pop() ?? '';
        for (const part of parts) hear(part);
      });
      response.on('end', () => done());
      response.on('error', (error) => {
        lost(error.message);
        done();
      });
    },
  );
  request.on('error', (error) => {
    lost(error.message);
    done();
  });
  request.end(JSON.stringify({ refs, environment }));
});
lost('its answer ended early');
process.exitCode = status ?? 1;
