import { SimProcess, TtyPilot, until, flyUndisturbed } from '#test/sim-kit.ts';
import { nowUs } from '#handover/native.ts';
flyUndisturbed();
const sim=await SimProcess.start('--no-camera');
const p=new TtyPilot(sim.rotors);
await until('h',async()=>(await sim.state()).position[2]<-1.9);
for(let k=0;k<4;k++){
const from=nowUs(); let n=0, late=0, last=0, gapmax=0; p.onFrame=f=>{ if(f.name==='HIGHRES_IMU'){const l=nowUs()-f.fields.time_usec; if(l>late)late=l; if(last&&f.fields.time_usec-last>gapmax)gapmax=f.fields.time_usec-last; last=f.fields.time_usec;} if(f.name==='ATTITUDE_QUATERNION')n++;};
const lost=p.parser.counts.lost;
await until('x',()=>nowUs()-from>4e6);
const to=nowUs(); const s=await sim.judge(from,to); const b=(await sim.state()).board;
console.log({n,cmds:s.commands,missed:s.missedCycles,mb:s.missedCyclesBoardLate,exp:(to-from)/4000,late,gapmax,lost:p.parser.counts.lost-lost,gapMax:s.gapMsMax,skipped:s.skippedTicks,bl:s.boardLateMsMax,fs:s.failsafes,ign:s.ignored,dr:b.framesDropped,disc:b.bytesDiscarded,cl:b.commandsLost,bc:b.badChecksums});
}
p.close(); await sim.stop();
