/** Errors of the supervisor, by blame: each has a stable `code` and says what to do next. */
export type AgentCode = 'DEVICE' | 'BAD_TARGET' | 'BAD_LABEL' | 'JOURNAL';

export class AgentError extends Error {
  override readonly name = 'AgentError';
  readonly code: AgentCode;
  constructor(code: AgentCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
