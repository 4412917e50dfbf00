/** Errors of the supervisor, by blame: each has a stable `code` and says what to do next. */
export type AgentCode = 'DEVICE' | 'HUB_LINK' | 'BAD_TARGET' | 'BAD_OPTION' | 'DIRECTORY_IN_USE';

export class AgentError extends Error {
  override readonly name = 'AgentError';
  readonly code: AgentCode;
  constructor(code: AgentCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
