import { spawn } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
const variants:{[k:string]:string[]}={plain:[],stgc:['--single-threaded-gc'],single:['--single-threaded'],nopar:['--no-parallel-scavenge']};
const run=async(name:string)=>{const d=mkdtempSync('/tmp/sim-late-');const c=spawn(process.execPath,[...variants[name]!,'device-sim/main.ts','--dir',d,'--log-level','warn','--no-camera'],{stdio:['ignore','pipe','inherit']});
const url=await new Promise<string>(r=>c.stdout.once('data',x=>r(JSON.parse(x.toString()).url)));
return {name,url,c}};
const sims=await Promise.all(["plain","stgc"].map(run));
await new Promise(r=>setTimeout(r,6000)); const from=Number(process.hrtime.bigint()/1000n);
await new Promise(r=>setTimeout(r,25000));
for(const s of sims){const j:any=await (await fetch(s.url+'/judge?fromUs='+from)).json();console.log(s.name,{max:j.boardLateMsMax,late:j.lateTicks,skipped:j.skippedTicks,samples:j.samples});s.c.kill('SIGTERM')}
