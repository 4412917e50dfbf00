/** Broken on purpose: ends before it has said a word to the agent. */
console.error('hover: cannot read its configuration');
process.exit(3);
