/** What lies in an injector's directory. */
export const LEDGER_FILE = 'ledger';
/** Who has the directory, and where it answers: `{ pid, startTicks, url }`. */
export const OWNER_FILE = 'injector.json';
