/** What the gateway's dashboard API says. Units are in the names; null is "not known". */

export const SCOPES = ["inference", "metrics", "dashboard", "admin"] as const;
export type Scope = (typeof SCOPES)[number];

export const PERIODS = ["day", "month", "ever"] as const;
export type Period = (typeof PERIODS)[number];

export interface SessionKey {
  readonly id: string;
  readonly name: string;
  readonly scopes: readonly Scope[];
}

export interface Figures {
  readonly requests_total: number;
  readonly errors_total: number;
  readonly mean_inference_s: number | null;
  readonly model_memory_bytes: number | null;
  readonly active_requests: number;
}

export type Values = readonly (number | null)[];

/** One value a bin, all as long as `t_utc_s`. */
export interface Series {
  readonly t_utc_s: readonly number[];
  readonly requests_per_s: Values;
  readonly errors_per_s: Values;
  readonly ttft_p50_s: Values;
  readonly ttft_p90_s: Values;
  readonly output_tokens_per_s: Values;
  readonly queue_waiting: Values;
  readonly active_requests: Values;
  readonly model_memory_bytes: Values;
  readonly gateway_memory_bytes: Values;
}

export type EngineState = "healthy" | "down" | "unknown";

export interface Engine {
  readonly name: string;
  readonly kind: string;
  readonly state: EngineState;
  readonly since_utc: string;
  readonly models: readonly string[];
  readonly active: number;
  readonly waiting: number;
  readonly slots: number;
  readonly memory_bytes: number | null;
  readonly last_error: string | null;
}

export interface Target {
  readonly engine: string;
  readonly model: string;
  readonly variant: string;
  readonly weight: number;
}

export interface Alias {
  readonly name: string;
  readonly targets: readonly Target[];
}

export interface Cache {
  readonly state: string;
  readonly hits: number;
  readonly misses: number;
  readonly entries: number;
  readonly bytes: number;
}

export interface Overview {
  readonly version: string;
  readonly uptime_s: number;
  readonly draining: boolean;
  readonly redis: "none" | "ok" | "lost";
  readonly figures: Figures;
  readonly series: Series;
  readonly engines: readonly Engine[];
  readonly aliases: readonly Alias[];
  readonly cache: Cache;
  readonly models: readonly string[];
}

export interface KeyLimits {
  readonly requests_per_minute: number | null;
  readonly tokens_per_minute: number | null;
  readonly concurrent: number | null;
  readonly budget_tokens: number | null;
  readonly budget_period: Period;
}

export interface KeyUse {
  readonly requests: number;
  readonly input_tokens: number;
  readonly output_tokens: number;
  readonly rejected: number;
  readonly last_used_utc: string | null;
  readonly budget_used_tokens: number | null;
}

export interface Key {
  readonly id: string;
  readonly name: string;
  readonly scopes: readonly Scope[];
  readonly models: readonly string[];
  readonly limits: KeyLimits;
  readonly created_utc: string;
  readonly expires_utc: string | null;
  readonly revoked_utc: string | null;
  readonly use: KeyUse;
}

export interface NewKey {
  readonly name: string;
  readonly scopes: readonly Scope[];
  readonly models: readonly string[];
  readonly limits: KeyLimits;
  readonly expires_days: number | null;
}

/** The secret is answered once and kept nowhere. */
export interface CreatedKey {
  readonly key: Pick<Key, "id" | "name">;
  readonly secret: string;
}

export interface Outcome {
  readonly request_id: string;
  readonly t_utc: string;
  readonly key_id: string;
  readonly key_name: string;
  readonly address: string;
  readonly operation: string;
  readonly model: string;
  readonly variant: string;
  readonly engine: string;
  readonly provider: string;
  readonly status: number;
  readonly failure: string | null;
  readonly stream: boolean;
  readonly cache: "hit" | "miss" | "bypass" | "joined";
  readonly queue_s: number;
  readonly ttft_s: number | null;
  readonly duration_s: number;
  readonly input_tokens: number | null;
  readonly output_tokens: number | null;
}
