/** What lies in an injector's directory, and in a link's. */
export const LEDGER_FILE = 'ledger';
/** Who has the directory, and where it answers: `{ pid, startTicks, url }`. */
export const OWNER_FILE = 'injector.json';
/** A link's door. */
export const CONTROL_SOCKET = 'link.sock';
