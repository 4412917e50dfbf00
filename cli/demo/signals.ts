/** The ends that a user or a machine may ask for: heard as often as they come, acted on in order. */
/** Ctrl-C, a polite kill, a closed terminal. More of them change nothing: the end is under way, and bounded. */
export function onSignals(act: (name: string) => void): () => void {
  const names = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  const onSignal = (name: string) => {
    process.stderr.write(`\n${name}: stopping\n`);
    act(name);
  };
  for (const name of names) process.on(name, onSignal);
  // A terminal that went away must not end us before everything else is.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  return () => {
    for (const name of names) process.off(name, onSignal);
  };
}
