import type { Figures } from "../api/contract";
import { Value } from "../parts/Value";
import { bytes, count, duration, percent } from "../text/format";

/** The five figures, since the gateway began. */
export function FiguresRow({ figures }: { readonly figures: Figures }) {
  const { requests_total, errors_total, mean_inference_s, model_memory_bytes, active_requests } =
    figures;
  const share = percent(errors_total, requests_total);
  return (
    <dl className="panel figures">
      <div>
        <dt>Total requests</dt>
        <dd>{count(requests_total)}</dd>
      </div>
      <div>
        <dt>Total errors</dt>
        <dd>
          {count(errors_total)}
          {share !== null && errors_total > 0 && <span className="hint"> {share}</span>}
        </dd>
      </div>
      <div>
        <dt>Average inference time</dt>
        <dd>
          <Value of={mean_inference_s} show={duration} why="no request was answered yet" />
        </dd>
      </div>
      <div>
        <dt>Model memory usage</dt>
        <dd>
          <Value of={model_memory_bytes} show={bytes} why="no engine tells its memory" />
        </dd>
      </div>
      <div>
        <dt>Active requests</dt>
        <dd>{count(active_requests)}</dd>
      </div>
    </dl>
  );
}
