/** Receives on descriptor 3 with hardly a descriptor number left (started under `ulimit -n`), and tells how it went. */
import { readdirSync } from 'node:fs';
import { native } from '#handover/native.ts';

const bytes = Buffer.alloc(100);
const into: number[] = [];
const before = readdirSync('/proc/self/fd').length;
let code = 'none';
try {
  native.receive(3, bytes, 0, bytes.length, into);
} catch (error) {
  code = (error as { code: string }).code;
}
const after = readdirSync('/proc/self/fd').length;
console.log(JSON.stringify({ code, given: into.length, leaked: after - before }));
