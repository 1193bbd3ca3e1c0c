/** Calls to the API, typed by its description. Every failure is an {@link ApiError} whose message can be shown. */
import { access, keyRefused } from "../access/key";
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];

/** What went wrong, and what to do about it. `status` is 0 where the server could not be reached at all. */
export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(
    readonly code: string,
    message: string,
    readonly status = 0,
    /** Seconds after which asking again is worth while, where that is known. */
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }
}

type Json<Answers> = Answers extends { 200: { content: { "application/json": infer Body } } } ? Body : never;
type Answer<Operation> = Operation extends { responses: infer Answers } ? Json<Answers> : never;
type PathsWith<Method extends string> = {
  [Path in keyof paths]: paths[Path] extends Record<Method, { responses: unknown }> ? Path : never;
}[keyof paths];

export interface Options {
  /** What stands in the place of `{name}` in the path. */
  path?: Record<string, string | number>;
  /** Left out where undefined, null or empty. */
  query?: Record<string, string | number | boolean | null | undefined>;
  body?: unknown;
  headers?: Record<string, string>;
  /** An API key to be tried, in the place of the one that is kept. */
  key?: string;
  signal?: AbortSignal;
}

export function get<Path extends PathsWith<"get">>(
  path: Path,
  options?: Options,
): Promise<Answer<paths[Path] extends { get: infer Operation } ? Operation : never>> {
  return json("GET", path, options);
}

export function put<Path extends PathsWith<"put">>(
  path: Path,
  options?: Options,
): Promise<Answer<paths[Path] extends { put: infer Operation } ? Operation : never>> {
  return json("PUT", path, options);
}

export function remove<Path extends PathsWith<"delete">>(
  path: Path,
  options?: Options,
): Promise<Answer<paths[Path] extends { delete: infer Operation } ? Operation : never>> {
  return json("DELETE", path, options);
}

/** The address of an API route, its names filled in. */
export function address(path: string, { path: names = {}, query = {} }: Options = {}): string {
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(names[name] ?? ""));
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") asked.set(name, String(value));
  }
  return asked.size ? `${filled}?${asked}` : filled;
}

/** Sends a request and answers with a response that is known to be a success. Goes with the visitor's key, if any. */
export async function send(method: string, path: string, options: Options = {}): Promise<Response> {
  const key = options.key ?? access.get().key;
  // Not `Authorization`, which may be the business of a proxy in front.
  const headers = { ...(key !== null && { "X-API-Key": key }), ...options.headers };
  const request: RequestInit = { method, headers };
  if (options.signal) request.signal = options.signal;
  if (options.body !== undefined) {
    request.headers = { ...headers, "Content-Type": "application/json" };
    request.body = JSON.stringify(options.body);
  }
  const response = await fetch(address(path, options), request).catch((error: unknown) => {
    throw options.signal?.aborted ? error : unreachable();
  });
  if (response.ok) return response;
  const error = await told(response);
  if (error.status === 401 && options.key === undefined) keyRefused(key, error);
  throw error;
}

function unreachable(): ApiError {
  return new ApiError("unreachable", "The server can't be reached. It may be restarting: try again in a moment.");
}

/** What to tell of a request that failed: our error as it is, anything else as a server that is away. */
export function known(failure: unknown): ApiError {
  return failure instanceof ApiError ? failure : unreachable();
}

async function json<Body>(method: string, path: string, options?: Options): Promise<Body> {
  const response = await send(method, path, options);
  return (response.status === 204 ? undefined : await response.json()) as Body;
}

async function told(response: Response): Promise<ApiError> {
  const body = (await response.json().catch(() => null)) as Partial<Schemas["ErrorAnswer"]> | null;
  const after = Number(response.headers.get("Retry-After"));
  return new ApiError(
    body?.code ?? "unexpected",
    body?.message ?? `The server answered ${response.status}. Try again in a moment.`,
    response.status,
    after > 0 ? after : null,
  );
}
