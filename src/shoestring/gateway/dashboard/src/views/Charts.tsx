import type { Series } from "../api/contract";
import { bytesUnit, perSecond, requestsUnit, secondsUnit, tokensPerSecond } from "../charts/axis";
import { LineChart } from "../charts/LineChart";

const NO_TOKEN = "no first token in these 5 s";
const NOT_TOLD = "not known for these 5 s";

/** The last 15 minutes. */
export function Charts({ series }: { readonly series: Series }) {
  const { t_utc_s } = series;
  return (
    <>
      <LineChart
        title="Time to first token"
        unitFor={secondsUnit}
        t_utc_s={t_utc_s}
        lines={[
          { name: "p50", values: series.ttft_p50_s, whyNone: NO_TOKEN },
          { name: "p90", values: series.ttft_p90_s, whyNone: NO_TOKEN },
        ]}
      />
      <LineChart
        title="Output"
        unitFor={tokensPerSecond}
        t_utc_s={t_utc_s}
        lines={[{ name: "all requests", values: series.output_tokens_per_s, whyNone: NOT_TOLD }]}
      />
      <LineChart
        title="Requests"
        unitFor={perSecond}
        t_utc_s={t_utc_s}
        lines={[
          { name: "all", values: series.requests_per_s, whyNone: NOT_TOLD },
          { name: "errors", values: series.errors_per_s, whyNone: NOT_TOLD },
        ]}
      />
      <LineChart
        title="Queue"
        unitFor={requestsUnit}
        t_utc_s={t_utc_s}
        lines={[
          { name: "active", values: series.active_requests, whyNone: NOT_TOLD },
          { name: "waiting", values: series.queue_waiting, whyNone: NOT_TOLD },
        ]}
      />
      <LineChart
        title="Memory"
        unitFor={bytesUnit}
        t_utc_s={t_utc_s}
        lines={[
          {
            name: "models",
            values: series.model_memory_bytes,
            whyNone: "no engine tells its memory",
          },
          { name: "gateway", values: series.gateway_memory_bytes, whyNone: NOT_TOLD },
        ]}
      />
    </>
  );
}
